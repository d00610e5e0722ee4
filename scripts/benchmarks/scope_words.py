"""Signals about the scope of an assistant from words alone: how near a text is to the training texts."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

N_NEAREST = 3
_WORD = re.compile(r"[a-z0-9']+")
Vector = Mapping[str, float]


def grams(text: str) -> Counter[str]:
    """Words and pairs of words."""
    words = _WORD.findall(text.lower())
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def dot(one: Vector, other: Vector) -> float:
    return sum(value * other.get(name, 0.0) for name, value in one.items())


def unit(values: Mapping[str, float]) -> Vector:
    size = math.sqrt(sum(value * value for value in values.values())) or 1.0
    return {name: value / size for name, value in values.items()}


class WordSignals:
    """Cosines of tf-idf vectors. `inside`: training texts with their intents, `outside`: texts of none."""

    def __init__(self, inside: Sequence[tuple[str, str]], outside: Sequence[str]) -> None:
        counted = [(grams(text), intent) for text, intent in inside]
        self._n_with = Counter(name for names, _ in counted for name in names)
        self._n_texts = len(inside)
        self._texts: dict[str, list[Vector]] = defaultdict(list)
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        for names, intent in counted:
            vector = self._vector(names)
            self._texts[intent].append(vector)
            for name, value in vector.items():
                sums[intent][name] += value  # type: ignore[assignment]
        self._centres = {intent: unit(total) for intent, total in sums.items()}
        self._outside = [self._vector(grams(text)) for text in outside]

    def _vector(self, names: Mapping[str, int]) -> Vector:
        return unit(
            {
                name: (1 + math.log(n)) * math.log((self._n_texts + 1) / (1 + self._n_with[name]))
                for name, n in names.items()
            }
        )

    def of(self, text: str, intent: str) -> tuple[float, float, float, float, float]:
        """Nearness to texts of the intent that the assistant has chosen, to their centre, and to the nearest
        centre; the part of the text that no training text has, and nearness to texts outside, both
        negative."""
        vector = self._vector(grams(text))
        near = sorted((dot(vector, one) for one in self._texts[intent]), reverse=True)
        return (
            sum(near[:N_NEAREST]) / N_NEAREST,
            dot(vector, self._centres.get(intent, {})),
            max(dot(vector, centre) for centre in self._centres.values()),
            -sum(value for name, value in vector.items() if name not in self._n_with),
            -max(dot(vector, one) for one in self._outside),
        )
