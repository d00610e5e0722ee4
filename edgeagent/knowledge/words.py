"""Content words of a text, cut to a stem, so that words can be compared. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from edgeagent.types.common_words import COMMON_WORDS

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SUFFIXES = (
    "ations", "ation", "ingly", "edly", "ments", "ment", "ness", "ings", "ing", "ies", "ied", "ers", "est",
    "ed", "es", "er", "ly", "en", "s", "e", "y",
)  # fmt: skip
_LEAST = 3


def content_words(text: str) -> set[str]:
    """Stems of the words that tell something. Texts without spaces between words give pairs of letters."""
    found: set[str] = set()
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _IDEOGRAPHS.search(word):
            found.update(word[n : n + 2] for n in range(max(1, len(word) - 1)))
        elif word not in COMMON_WORDS:
            found.add(stem(word))
    return found


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """A word without its ending, roughly: fares and fare are one, and so are cancel and cancelled."""
    word = re.split(r"['’]", word)[0]
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _LEAST:
            word = word[: -len(suffix)]
            break
    if len(word) > _LEAST and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word


def coverage(wanted: set[str], text: str) -> float:
    """The share of the wanted words that a text has, 0..1; longer words count more, up to 8 letters."""
    total = sum(min(len(word), 8) for word in wanted)
    if not total:
        return 0.0
    held = content_words(text)
    return sum(min(len(word), 8) for word in wanted if word in held) / total
