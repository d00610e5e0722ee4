"""What learned scores read of a text: hashed words and pairs of words, and its shape.

Plain Python: the daemon computes these for each request.
"""

from __future__ import annotations

import math
import re
from zlib import crc32

from edgeagent.routing.route_request import window

N_BITS = 16
N_COLUMNS = 1 << N_BITS
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


def hashed(found: list[str]) -> dict[int, float]:
    """Columns of single tokens and of pairs, with 1 + ln(count)."""
    counts: dict[int, int] = {}
    before = ""
    for token in found:
        for feature in (token, f"{before} {token}"):
            column = crc32(feature.encode()) & (N_COLUMNS - 1)
            counts[column] = counts.get(column, 0) + 1
        before = token
    return {column: 1.0 + math.log(n) for column, n in counts.items()}


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


def features(text: str) -> tuple[dict[int, float], list[float], list[str]]:
    """The hashed columns, the shape and the tokens of the part of a text that the router reads."""
    text = window(text)
    found = tokens(text)
    return hashed(found), shape(text), found
