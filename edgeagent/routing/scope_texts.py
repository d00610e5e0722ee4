"""How near a text is to the examples of an intent: by words, and by vectors where they are known.

Plain Python: the daemon computes this for texts that an assistant model has answered, among about a hundred
examples of the intent that it has chosen.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from zlib import crc32

import msgspec

N_NEAREST = 3  # examples
N_PROTOTYPES = 2  # nearest ones that count
MAX_WORDS = 64  # of a text that are read; intents are asked for in fewer
MAX_CHARS = 1024
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_TINY = 1e-3  # by which two rarities that are equal may differ
_STEP = 1 / 127  # of a number of a stored vector


def words_of(text: str) -> list[str]:
    return _WORD.findall(text[:MAX_CHARS].casefold())[:MAX_WORDS]


def grams_of(words: Sequence[str]) -> set[int]:
    """Hashes of the different words and pairs of words."""
    pairs = (f"{a} {b}" for a, b in pairwise(words))
    return {crc32(one.encode("utf-8", "surrogatepass")) for one in (*words, *pairs)}


class Examples(msgspec.Struct, frozen=True, array_like=True):
    """The examples of an intent, or texts of none.

    `grams`: what they consist of, uint16 numbers in the vocabulary, in order; `starts` uint16 where the
    `texts` (uint8) of each gram begin, and their end. `lengths` float32 of the vectors of the texts, `length`
    that of the sum of these vectors. `centre` and `prototypes`: int8 vectors of a sentence-embedding model,
    or empty.
    """

    grams: bytes
    starts: bytes
    texts: bytes
    lengths: bytes
    length: float
    centre: bytes = b""
    prototypes: list[bytes] = []


class Vocabulary(msgspec.Struct, frozen=True, array_like=True):
    """What the examples consist of: uint32 hashes in order, float32 rarity of each; `unknown` is the rarity
    of what no example of an intent has."""

    hashes: bytes
    rarity: bytes
    unknown: float


@dataclass(frozen=True)
class Nearness:
    """To the examples of an intent: the mean of the `N_NEAREST` nearest, and the middle of all; `unknown` is
    the part of the text that no example of any intent has, `outside` the nearest text of none."""

    near: float
    centre: float
    unknown: float
    n_words: int
    outside: float = 0.0


class WordNearness:
    """Ready to compare. Any thread may use it."""

    def __init__(
        self, vocabulary: Vocabulary, intents: Mapping[str, Examples], outside: Examples | None
    ) -> None:
        self._hashes, self._rarity = array("I", vocabulary.hashes), array("f", vocabulary.rarity)
        self._unknown = vocabulary.unknown
        self._intents = intents
        self._outside = outside

    def of(self, text: str, intent: str) -> Nearness | None:
        """None for an intent without examples."""
        examples = self._intents.get(intent)
        if examples is None:
            return None
        words = words_of(text)
        known: dict[int, float] = {}
        total = missing = 0.0
        for gram in sorted(grams_of(words)):
            at = bisect_left(self._hashes, gram)
            if at < len(self._hashes) and self._hashes[at] == gram:
                rarity = self._rarity[at]
                known[at] = rarity * rarity
            else:
                rarity = self._unknown
            if rarity > self._unknown - _TINY:
                missing += rarity * rarity
            total += rarity * rarity
        if not total:
            return Nearness(0.0, 0.0, 1.0, len(words))
        length = math.sqrt(total)
        found = _likeness(known, examples)
        near = sorted(found, reverse=True)[:N_NEAREST]
        outside = _likeness(known, self._outside) if self._outside is not None else ()
        return Nearness(
            sum(near) / (N_NEAREST * length),
            math.fsum(found) / (max(examples.length, 1e-9) * length),
            missing / total,
            len(words),
            max(outside, default=0.0) / length,
        )


def _likeness(known: Mapping[int, float], examples: Examples) -> list[float]:
    """The products of a text with each example, which has length 1."""
    grams, starts = array("H", examples.grams), array("H", examples.starts)
    texts = examples.texts
    found = [0.0] * (len(examples.lengths) // 4)
    for gram, value in known.items():
        at = bisect_left(grams, gram)
        if at < len(grams) and grams[at] == gram:
            for text in texts[starts[at] : starts[at + 1]]:
                found[text] += value
    return [
        value / length for value, length in zip(found, array("f", examples.lengths), strict=True)
    ]


class VectorNearness:
    """Compares vectors of texts with those of `intents` and of texts `outside`; `middle`: what all vectors
    have in common, float32. Any thread may use it."""

    def __init__(
        self, middle: bytes, intents: Mapping[str, Examples], outside: Examples | None
    ) -> None:
        self._middle = array("f", middle)
        self._intents = intents
        # Products of floats take less time than those of floats and integers.
        stored = outside.prototypes if outside is not None else []
        self._outside = [array("f", array("b", one)) for one in stored]

    def of(self, vector: Sequence[float], intent: str) -> tuple[float, float, float] | None:
        """Cosines of a vector with the nearest prototypes of the intent (the mean of two), with its centre,
        and, negative, with the nearest prototypes outside; None where there are no vectors like this one.
        Takes less than a millisecond."""
        examples = self._intents[intent]
        if not examples.prototypes or len(self._middle) != len(vector):
            return None
        own = centred(vector, self._middle)
        return (
            _nearest(own, [array("b", one) for one in examples.prototypes]),
            _cosine(own, array("b", examples.centre)),
            -_nearest(own, self._outside),
        )


def _nearest(vector: Sequence[float], stored: Sequence[array[int] | array[float]]) -> float:
    near = sorted((_cosine(vector, one) for one in stored), reverse=True)[:N_PROTOTYPES]
    return sum(near) / max(1, len(near))


def _cosine(vector: Sequence[float], stored: array[int] | array[float]) -> float:
    total: float = sum(map(mul, vector, stored))
    return total * _STEP


def centred(vector: Sequence[float], middle: Sequence[float]) -> list[float]:
    """A vector without what all have in common, of length 1."""
    rest = [value - mean for value, mean in zip(vector, middle, strict=True)]
    length = math.sqrt(math.fsum(value * value for value in rest)) or 1.0
    return [value / length for value in rest]
