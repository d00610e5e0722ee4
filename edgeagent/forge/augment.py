"""Augmentation: paraphrases that keep the meaning of a text.

Each variant is drawn from its own seed (recipe, item, number), so that an interrupted training continues
with the same texts. If a change does shift the meaning, the student learns from the teacher's output for
the changed text.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeagent.forge.datasets import OUT_OF_SCOPE, Item, Slot

_CONTRACTIONS = {
    "what's": "what is", "i'm": "i am", "i'd": "i would", "i've": "i have", "can't": "cannot",
    "don't": "do not", "doesn't": "does not", "didn't": "did not", "isn't": "is not", "it's": "it is",
    "won't": "will not", "haven't": "have not", "hasn't": "has not", "where's": "where is",
    "how's": "how is", "there's": "there is", "that's": "that is", "let's": "let us", "i'll": "i will",
    "couldn't": "could not", "wasn't": "was not", "you're": "you are", "who's": "who is",
}  # fmt: skip
_EXPANSIONS = {long: short for short, long in _CONTRACTIONS.items()}
_OPENINGS = (
    "please", "hey,", "hi,", "hello,", "ok,", "can you", "could you", "i want to know", "tell me", "so",
    "i was wondering,", "quick question:", "can you help me?", "excuse me,", "um", "i need to know",
)  # fmt: skip
_ENDINGS = ("please", "thanks", "thank you", "now", "?", ".", "!", "for me", "if possible", "today")
_WORD = re.compile(r"\S+")


class WordNeighbours:
    """Words with similar vectors in a table of word vectors: float [n_words, n_dims], any scale."""

    def __init__(self, words: Sequence[str], vectors: np.ndarray, n: int = 8) -> None:
        unit = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)
        self._near: dict[str, list[str]] = {}
        for start in range(0, len(words), 1024):
            likeness = unit[start : start + 1024] @ unit.T
            rows = np.arange(len(likeness))
            likeness[rows, start + rows] = -1.0
            best = np.argpartition(-likeness, n, axis=1)[:, :n]
            for row, ids in enumerate(best):
                near = [words[i] for i in ids if likeness[row, i] > 0.45]
                if near:
                    self._near[words[start + row]] = near

    def pick(self, word: str, rng: random.Random) -> str:
        near = self._near.get(word.lower())
        return rng.choice(near) if near else word


class Augmenter:
    """Creates variants of the items of one corpus."""

    def __init__(
        self, items: Sequence[Item], seed: int, neighbours: WordNeighbours | None = None
    ) -> None:
        self._seed = seed
        self._neighbours = neighbours
        self._same: dict[str, list[Item]] = defaultdict(list)
        self._values: dict[str, list[str]] = defaultdict(list)
        for item in items:
            self._same[item.intent].append(item)
            for slot in item.slots:
                self._values[slot.name].append(slot.value)

    def variant(self, item: Item, index: int, number: int) -> Item:
        """Variant `number` of item `index`; number 0 is the item itself."""
        if number == 0:
            return item
        rng = random.Random(f"{self._seed}/{index}/{number}")
        if item.slots:
            return _styled_whole(self._other_values(item, rng), rng)
        words = item.text.split()
        if rng.random() < 0.2 and len(words) > 4 and item.intent != OUT_OF_SCOPE:
            words = self._spliced(item, words, rng)
        words = self._changed_words(words, rng)
        return replace(item, text=_styled(" ".join(words), rng), slots=())

    def _spliced(self, item: Item, words: list[str], rng: random.Random) -> list[str]:
        """The first part of this text and the last part of another with the same intent."""
        other = rng.choice(self._same[item.intent]).text.split()
        if len(other) < 4:
            return words
        cut = rng.uniform(0.3, 0.7)
        return words[: round(cut * len(words))] + other[round(cut * len(other)) :]

    def _changed_words(self, words: list[str], rng: random.Random) -> list[str]:
        out = []
        for word in words:
            roll = rng.random()
            if roll < 0.06 and len(words) > 3:
                continue
            if roll < 0.20 and len(word) > 3 and self._neighbours is not None:
                word = self._neighbours.pick(word, rng)
            elif roll < 0.23 and len(word) > 3:
                word = _mistyped(word, rng)
            elif roll < 0.55 and word.lower() in _CONTRACTIONS:
                word = _CONTRACTIONS[word.lower()]
            out.append(word)
        return out or words

    def _other_values(self, item: Item, rng: random.Random) -> Item:
        """Replace some slot values by values of the same slot in other items, also in the call."""
        text, slots, at = "", [], 0
        for slot in sorted(item.slots, key=lambda slot: slot.start):
            value = slot.value
            if rng.random() < 0.5:
                value = rng.choice(self._values[slot.name])
            elif rng.random() < 0.15:
                value = value.lower() if rng.random() < 0.5 else value.title()
            text += item.text[at : slot.start]
            slots.append(Slot(slot.name, value, len(text), len(text) + len(value)))
            text += value
            at = slot.end
        return replace(item, text=text + item.text[at:], slots=tuple(slots))


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]


def _styled(text: str, rng: random.Random) -> str:
    """Vary openings, endings, case and punctuation."""
    if rng.random() < 0.12:
        text = f"{rng.choice(_OPENINGS)} {text}"
    if rng.random() < 0.12:
        ending = rng.choice(_ENDINGS)
        text += ending if ending in "?.!" else f" {ending}"
    if rng.random() < 0.1:
        for long, short in _EXPANSIONS.items():
            if long in text:
                text = text.replace(long, short, 1)
                break
    roll = rng.random()
    if roll < 0.25:
        return text.lower()
    if roll < 0.5:
        return text[:1].upper() + text[1:]
    if roll < 0.6:
        return text.rstrip("?.! ")
    return text


def _styled_whole(item: Item, rng: random.Random) -> Item:
    """Vary case and the last punctuation mark, as long as no slot moves."""
    roll = rng.random()
    if roll < 0.15:
        lowered = tuple(replace(slot, value=slot.value.lower()) for slot in item.slots)
        text = item.text.lower()
        # Some letters change their length in lower case.
        return replace(item, text=text, slots=lowered) if len(text) == len(item.text) else item
    if roll < 0.3 and item.text[-1:] in "?.!":
        end = max((slot.end for slot in item.slots), default=0)
        if end < len(item.text):
            return replace(item, text=item.text[:-1])
    if roll < 0.4 and item.text[-1:].isalnum():
        return replace(item, text=item.text + rng.choice("?."))
    return item


def corpus_words(items: Sequence[Item], n_min: int = 4) -> list[str]:
    """The words with at least `n_min` occurrences in the texts, only letters, in lower case."""
    counts = Counter(w.lower() for item in items for w in _WORD.findall(item.text) if w.isalpha())
    return sorted(word for word, n in counts.items() if n >= n_min)
