"""Texts that a person should look at: those from which a model would learn most, first.

A text is worth a look if a client rated its answer badly, if the two best intents are nearly equal (margin
sampling, Scheffer et al. 2001), or if the nearest example has another intent than the model chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeagent.forge.domain.checks import normalized
from edgeagent.forge.domain.example import MAX_TEXT, Example
from edgeagent.forge.domain.served_evaluation import Choice
from edgeagent.forge.domain.trunk_file import Floats

_RATED, _DISAGREES = 2.0, 0.5


@dataclass(frozen=True)
class ReviewItem:
    """A text with the model's choice and why it is worth a look; `value` orders the list."""

    text: str
    choice: Choice
    nearest: str
    is_rated_badly: bool
    value: float

    @property
    def why(self) -> str:
        reasons = ["rated badly"] if self.is_rated_badly else []
        if self.nearest != self.choice.intent:
            reasons.append(f"the nearest example is {self.nearest}")
        return ", ".join([*reasons, f"margin {self.choice.margin:.2f}"])


def open_texts(
    ratings: Mapping[str, int | None], known: Sequence[Example]
) -> dict[str, int | None]:
    """The texts that are no examples yet, each once: text to its worst rating."""
    seen = {normalized(example.text) for example in known}
    found: dict[str, int | None] = {}
    for text, rating in ratings.items():
        key = normalized(text)
        if key not in seen and 0 < len(text.strip()) <= MAX_TEXT:
            seen.add(key)
            found[" ".join(text.split())] = rating
    return found


def nearest_intents(texts: Floats, examples: Floats, known: Sequence[Example]) -> list[str]:
    """The intent of the nearest example of each text, by the cosine of their vectors."""
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (texts, examples)
    ]
    return [known[int(n)].intent for n in (unit[0] @ unit[1].T).argmax(1)]


def ranked(
    ratings: Mapping[str, int | None],
    choices: Sequence[Choice],
    nearest: Sequence[str],
    n_most: int,
) -> list[ReviewItem]:
    """The `n_most` texts that are worth most."""
    items = []
    for (text, rating), choice, near in zip(ratings.items(), choices, nearest, strict=True):
        is_bad = rating is not None and rating < 0
        value = 1 - choice.margin + _DISAGREES * (near != choice.intent) + _RATED * is_bad
        items.append(ReviewItem(text, choice, near, is_bad, value))
    return sorted(items, key=lambda item: (-item.value, item.text))[:n_most]
