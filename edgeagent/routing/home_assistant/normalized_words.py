"""Normalizes a user's text to words that can be compared: lower case, no articles, contractions spelled
out.

    "Turn on the kitchen's light, please!"  ->  turn on kitchens light please
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_TOKEN = re.compile(r"\d+(?:[.,]\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)*|%|°", re.UNICODE)
_ARTICLES = frozenset({"the", "a", "an", "my", "our", "your", "teh", "hte"})
_SYMBOLS = {"%": "percent", "°": "degrees"}
_WHOLE = {
    "what's": "what is", "whats": "what is", "where's": "where is", "it's": "it is", "that's": "that is",
    "who's": "who is", "how's": "how is", "there's": "there is", "let's": "let us", "can't": "can not",
    "cannot": "can not", "won't": "will not", "i'm": "i am", "ok": "okay",
}  # fmt: skip
_ENDINGS = (("n't", " not"), ("'d", " would"), ("'ll", " will"), ("'re", " are"), ("'ve", " have"))


_ONES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
Span = tuple[int, int]


@dataclass(frozen=True)
class Words:
    """The words of a text, and where in it each stands."""

    text: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, text: str) -> Words:
        """The words of `text` without articles, with numbers in digits."""
        words, spans = [], []
        for found in _TOKEN.finditer(unicodedata.normalize("NFC", text)):
            for word in _spelled(found.group()):
                if word not in _ARTICLES:
                    words.append(word)
                    spans.append(found.span())
        return cls(unicodedata.normalize("NFC", text), *counted(words, spans))

    @property
    def line(self) -> str:
        """Each word with a space behind it."""
        return "".join(f"{word} " for word in self.words)

    def cut(self, first: int, last: int) -> Words:
        return Words(self.text, self.words[first:last], self.spans[first:last])

    def original(self, first: int, last: int) -> str:
        """The text from word `first` up to word `last`, as it was written."""
        if first >= last:
            return ""
        return self.text[self.spans[first][0] : self.spans[last - 1][1]]

    def corrected(self, vocabulary: Collection[str]) -> Words:
        """Misspelt words replaced by the one word of the vocabulary that is meant, or by the two that were
        run together."""
        words, spans = [], []
        for word, span in zip(self.words, self.spans, strict=True):
            for one in _run_together(word, vocabulary) or (_nearest(word, vocabulary),):
                words.append(one)
                spans.append(span)
        return Words(self.text, tuple(words), tuple(spans))


def _spelled(token: str) -> list[str]:
    word = token.replace("’", "'").casefold()
    word = _SYMBOLS.get(word, _WHOLE.get(word, word))
    for ending, spelled in _ENDINGS:
        if word.endswith(ending):
            word = word.removesuffix(ending) + spelled
    return word.replace("'", "").replace(",", ".").split()


def counted(words: list[str], spans: list[Span]) -> tuple[tuple[str, ...], tuple[Span, ...]]:
    """Words and their spans with each number that is spelled out as one word of digits."""
    out: list[str] = []
    places: list[Span] = []
    at = 0
    while at < len(words):
        text, n = _number(words, at)
        out.append(text)
        places.append((spans[at][0], spans[at + n - 1][1]))
        at += n
    return tuple(out), tuple(places)


def _number(words: list[str], at: int) -> tuple[str, int]:
    """The number that begins at a word, in digits, and of how many words it is; else the word itself."""
    whole, n = _below_hundred(words, at)
    if words[at + n : at + n + 1] == ["hundred"]:
        rest, n_rest = _below_hundred(words, at + n + 1)
        whole, n = (whole if n else 1) * 100 + rest, n + 1 + n_rest
    if n == 0:
        return words[at], 1
    digits = ""
    for word in words[at + n + 1 :] if words[at + n : at + n + 1] == ["point"] else []:
        if _ONES.get(word, 10) > 9:
            break
        digits += str(_ONES[word])
    return (f"{whole}.{digits}", n + 1 + len(digits)) if digits else (str(whole), n)


def _below_hundred(words: list[str], at: int) -> tuple[int, int]:
    first = words[at] if at < len(words) else ""
    second = words[at + 1] if at + 1 < len(words) else ""
    if first in _TENS:
        unit = _ONES.get(second, 0)
        return (_TENS[first] + unit, 2) if 0 < unit < 10 else (_TENS[first], 1)
    return (_ONES[first], 1) if first in _ONES else (0, 0)


def stem(word: str) -> str:
    """A noun without the ending of its plural."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("shes", "ches", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


def stems(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(stem(word) for word in words)


def _nearest(word: str, vocabulary: Collection[str]) -> str:
    """`word`, or the only known word that differs from it by a slip of the finger."""
    if word in vocabulary or len(word) < 4 or not word.isalpha():
        return word
    near = [
        known
        for known in vocabulary
        if known[:1] == word[:1]
        and len(known) >= 4
        and abs(len(known) - len(word)) <= 1
        and is_slip(word, known)
    ]
    return near[0] if len({stem(known) for known in near}) == 1 else word


def _run_together(word: str, vocabulary: Collection[str]) -> tuple[str, str] | None:
    if word in vocabulary or len(word) < 6:
        return None
    cuts = ((word[:n], word[n:]) for n in range(2, len(word) - 1))
    return next((cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary), None)


def is_slip(one: str, other: str) -> bool:
    """Whether one letter was left out, added, replaced, or swapped with its neighbour."""
    if len(one) > len(other):
        one, other = other, one
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return len(other) - len(one) == 1 and one[at:] == other[at + 1 :]
    is_swap = one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    return one[at + 1 :] == other[at + 1 :] or is_swap
