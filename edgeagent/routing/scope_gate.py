"""Whether a text is in the scope of an assistant model, by the model's confidence and by the examples of the
intent that it has chosen.

A logistic regression of a few signals. The file (`NAME.scope`) is beside the list of intents, or in the
state directory after `edgeagent route calibrate --scope`; routing/training/scope_training.py makes it. Plain
Python.
"""

from __future__ import annotations

import math
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.durable import open_regular
from edgeagent.errors import SettingsError
from edgeagent.routing.scope_texts import (
    Examples,
    Nearness,
    VectorNearness,
    Vocabulary,
    WordNearness,
)

VERSION = 2
MAX_FILE_BYTES = 8 << 20
MAX_BYTES = 32 << 20
MAX_PROTOTYPES = 64  # that a text is compared with
WORD_SIGNALS = ("log-odds", "margin", "near", "centre", "unknown", "words", "outside")
VECTOR_SIGNALS = (*WORD_SIGNALS, "vector near", "vector centre", "vector outside")


class Gate(msgspec.Struct, frozen=True, array_like=True):
    """Weights of standardized signals; a greater score is more in scope. `cuts` are scores below which
    `lost` of the right calls are, by texts that the weights have not seen."""

    means: list[float]
    scales: list[float]
    weights: list[float]
    bias: float
    lost: list[float]
    cuts: list[float]

    def score(self, signals: Sequence[float]) -> float:
        parts = zip(signals, self.means, self.scales, self.weights, strict=True)
        return self.bias + math.fsum(w * (x - mean) / scale for x, mean, scale, w in parts)

    def cut(self, lost: float) -> float:
        """The score below which this share of the right calls is; between the known shares by a line, below
        the first one no text."""
        at = bisect_left(self.lost, lost)
        if at == len(self.lost):
            return self.cuts[-1]
        if self.lost[at] == lost:
            return self.cuts[at]
        if at == 0:
            return -math.inf
        part = (lost - self.lost[at - 1]) / (self.lost[at] - self.lost[at - 1])
        return self.cuts[at - 1] + part * (self.cuts[at] - self.cuts[at - 1])

    def is_sound(self, n_signals: int) -> bool:
        numbers = [*self.means, *self.scales, *self.weights, self.bias, *self.lost, *self.cuts]
        return (
            len(self.means) == len(self.scales) == len(self.weights) == n_signals
            and all(self.scales)
            and all(map(math.isfinite, numbers))
            and 0 < len(self.lost) == len(self.cuts)
            and self.lost == sorted(set(self.lost))
            and self.cuts == sorted(self.cuts)
        )


class DomainGates(msgspec.Struct, frozen=True):
    """The gates of a domain: by words, and by words and vectors. `doubt`: scores of the first one beyond
    which the vector does not change the outcome often enough to be asked for."""

    words: Gate
    vectors: Gate | None = None
    doubt: tuple[float, float] = (0.0, 0.0)
    n_inside: int = 0
    n_outside: int = 0


class ScopeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`models`: gates by the SHA-256 of the model's file and the domain (`assistant_intents.ALL` for all).
    `outside`: texts that ask for no intent. `encoder`: the sentence-embedding model of the vectors, `middle`
    the float32 mean of its vectors."""

    version: int = VERSION
    revision: int = 1
    vocabulary: Vocabulary
    intents: dict[str, Examples]
    models: dict[str, dict[str, DomainGates]]
    encoder: str = ""
    middle: bytes = b""
    outside: Examples | None = None


@dataclass(frozen=True)
class ScopeScore:
    """A `score` below the `cut` is out of scope. `signals` by name; `is_in_doubt`: a vector may decide
    otherwise."""

    score: float
    cut: float
    signals: dict[str, float]
    is_in_doubt: bool = False

    @property
    def is_inside(self) -> bool:
        return self.score >= self.cut

    def __str__(self) -> str:
        sign = ">=" if self.is_inside else "<"
        told = ", ".join(f"{name} {value:.2f}" for name, value in self.signals.items())
        return f"score {self.score:.2f} {sign} {self.cut:.2f}: {told}"


class ScopeGate:
    """The gates of one model. Any thread may use it."""

    def __init__(self, file: ScopeFile, gates: dict[str, DomainGates]) -> None:
        self.encoder = file.encoder
        self._gates = gates
        self._words = WordNearness(file.vocabulary, file.intents, file.outside)
        self._vectors = VectorNearness(file.middle, file.intents, file.outside)

    def has(self, domain: str) -> bool:
        return domain in self._gates

    def score(
        self,
        domain: str,
        text: str,
        intent: str,
        probability: float,
        margin: float,
        max_lost: float,
    ) -> ScopeScore | None:
        """By words; takes about a fifth of a millisecond. None for a domain or an intent without a gate."""
        gates = self._gates.get(domain)
        nearness = self._words.of(text, intent) if gates is not None else None
        if gates is None or nearness is None:
            return None
        signals = word_signals(probability, margin, nearness)
        score = gates.words.score(signals)
        low, high = gates.doubt
        is_open = gates.vectors is not None and low <= score <= high
        named = dict(zip(WORD_SIGNALS, signals, strict=True))
        return ScopeScore(score, gates.words.cut(max_lost), named, is_open)

    def with_vector(
        self, domain: str, intent: str, first: ScopeScore, vector: Sequence[float], max_lost: float
    ) -> ScopeScore:
        """The score with the vector of the text; the first one where the vector does not fit."""
        gates = self._gates[domain]
        found = self._vectors.of(vector, intent) if gates.vectors is not None else None
        if gates.vectors is None or found is None:
            return first
        signals = [*first.signals.values(), *found]
        named = dict(zip(VECTOR_SIGNALS, signals, strict=True))
        return ScopeScore(gates.vectors.score(signals), gates.vectors.cut(max_lost), named)


def word_signals(probability: float, margin: float, nearness: Nearness) -> list[float]:
    """The values of `WORD_SIGNALS`."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return [
        math.log(p / (1 - p)), margin, nearness.near, nearness.centre, -nearness.unknown,
        math.log1p(nearness.n_words), -nearness.outside,
    ]  # fmt: skip


def read_scope(path: Path) -> ScopeFile:
    """Raises: SettingsError for a file that is none or does not fit this version."""
    try:
        with open_regular(path, MAX_FILE_BYTES) as opened:
            data = opened.read()
        file = msgspec.msgpack.decode(_unpacked(data), type=ScopeFile)
        why = _fault(file)
    except OSError as exc:
        why = exc.strerror or "it cannot be read"
    except (msgspec.DecodeError, RecursionError, zlib.error, ValueError) as exc:
        why = str(exc)
    if why is not None:
        raise SettingsError(
            f"The scope gate {path} cannot be used: {why}. Without it the gate beside the model "
            "judges, or its probability alone; `edgeagent route calibrate --scope` makes a new one, or "
            "install the model again."
        )
    return file


def _unpacked(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    found = reader.decompress(data, MAX_BYTES)
    if not reader.eof:
        raise ValueError("it is not whole, or unpacks to more than 32 MB")
    return found


def _fault(file: ScopeFile) -> str | None:
    """What keeps a file from being used; None where nothing does."""
    if file.version != VERSION:
        return f"it has version {file.version}, this edgeagent reads {VERSION}"
    n_hashes, n_rarity = len(file.vocabulary.hashes), len(file.vocabulary.rarity)
    fits = n_hashes == n_rarity and n_hashes % 4 == 0 and n_hashes <= 4 << 16
    n_middle = len(file.middle) // 4
    every = [*file.intents.values(), *([file.outside] if file.outside is not None else [])]
    fits = fits and all(_is_sound(examples, n_middle) for examples in every)
    fits = fits and len(file.middle) % 4 == 0 and all(map(math.isfinite, array("f", file.middle)))
    for gates in (gates for found in file.models.values() for gates in found.values()):
        fits = fits and gates.words.is_sound(len(WORD_SIGNALS))
        fits = fits and (gates.vectors is None or gates.vectors.is_sound(len(VECTOR_SIGNALS)))
    return None if fits else "its parts do not fit together"


def _is_sound(examples: Examples, n_dimensions: int) -> bool:
    """Whether no index leads out of the examples of an intent."""
    n_starts, n_lengths = len(examples.starts), len(examples.lengths)
    if n_starts % 2 or n_lengths % 4 or n_starts != len(examples.grams) + 2:
        return False
    starts, lengths = array("H", examples.starts), array("f", examples.lengths)
    return (
        list(starts) == sorted(starts)
        and starts[-1] <= len(examples.texts)
        and all(text < len(lengths) for text in set(examples.texts))
        and all(math.isfinite(length) and length > 0 for length in (*lengths, examples.length))
        and len(examples.prototypes) <= MAX_PROTOTYPES
        and all(len(one) == n_dimensions for one in examples.prototypes)
        and len(examples.centre) in (0, n_dimensions)
    )
