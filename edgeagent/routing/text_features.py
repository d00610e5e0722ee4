"""What learned scores read of a text: hashed words and pairs of words, and its shape.

Plain Python: the daemon computes these for each request.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from zlib import crc32

from edgeagent.routing.route_request import window

N_BITS = 16
N_COLUMNS = 1 << N_BITS
N_WORDS = 1 << 18  # numbers of single tokens
MOST_COUNT = 255  # a column that comes more often counts no more
_TOKEN = re.compile(r"[^\W\d_]+|\d|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]+")
_NEGATION = re.compile(r"\b(?:not|no|except|never|least|false)\b", re.IGNORECASE)

SHAPE_NAMES = (
    "characters", "characters of the first line", "digits", "operators", "commas", "full stops", "lines",
    "question mark", "blank to fill", "negation", "quotes", "upper case", "letters in a word", "words",
)  # fmt: skip


def tokens(text: str) -> list[str]:
    """Words, digits and other signs, without upper case."""
    return _TOKEN.findall(text.casefold())


@dataclass(frozen=True)
class TextFeatures:
    """`counts` of the hashed columns, the shape, and the numbers of the different tokens (`word_number`)."""

    counts: dict[int, int]
    shape: list[float]
    words: frozenset[int]

    @property
    def columns(self) -> dict[int, float]:
        """The values of the hashed columns, 1 + ln(count)."""
        return {column: 1.0 + math.log(n) for column, n in self.counts.items()}


def word_number(token: str) -> int:
    return crc32(token.encode()) & (N_WORDS - 1)


def hashed(found: list[str]) -> dict[int, int]:
    """How often each column of single tokens and of pairs comes."""
    counts: dict[int, int] = {}
    before = ""
    for token in found:
        for feature in (token, f"{before} {token}"):
            column = crc32(feature.encode()) & (N_COLUMNS - 1)
            counts[column] = min(MOST_COUNT, counts.get(column, 0) + 1)
        before = token
    return counts


def shape(text: str) -> list[float]:
    """Lengths, counts and signs of a text, as `SHAPE_NAMES` has them; counts as ln(1 + n)."""
    words = _WORD.findall(text)
    n_letters = sum(map(len, words))
    counts = (
        len(text),
        len(text.partition("\n")[0]),
        sum(map(str.isdigit, text)),
        sum(map(text.count, "=+-*/^\\<>|%")),
        text.count(","),
        text.count("."),
        text.count("\n"),
    )
    return [
        *map(math.log1p, counts),
        float("?" in text),
        float("__" in text),
        float(_NEGATION.search(text) is not None),
        float('"' in text),
        sum(map(str.isupper, text)) / max(1, len(text)),
        n_letters / max(1, len(words)),
        math.log1p(len(words)),
    ]


def features(text: str) -> TextFeatures:
    """The features of the part of a text that the router reads."""
    text = window(text)
    found = tokens(text)
    return TextFeatures(hashed(found), shape(text), frozenset(map(word_number, found)))
