"""Checks of a domain's examples: what is wrong with them, where, and what to do about it.

Errors must be corrected before a training; warnings are printed. Pure, except that `nearest_pairs` needs
the vectors of the texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.example import MAX_INTENTS, MAX_SLOTS, Domain, Example, Place
from edgeagent.forge.domain.trunk_file import Floats

FEW = 5  # examples of an intent
FEWEST = 2
UNBALANCED = 10  # times as many examples
_SHOWN = 20  # findings of one kind
_WORDS = re.compile(r"\w+")
_HALF_MARK = re.compile(r"\[[^\[\]]*(\]\s?[({]|[({])")


@dataclass(frozen=True)
class Finding:
    """`place` None: of the whole domain."""

    kind: Literal["error", "warning"]
    place: Place | None
    text: str

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place is not None else ""
        return f"{self.kind}: {where}{self.text}"


def normalized(text: str) -> str:
    """The words of a text without case and punctuation, by which equal texts are found."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(folded)) or folded


def check(domain: Domain) -> list[Finding]:
    """Everything that is wrong, errors first."""
    notes = [Finding("warning", note.place, note.text) for note in domain.notes]
    found = [
        *_cut(notes, "notes on what was read"),
        *_contradictions(domain.examples),
        *_sizes(domain),
        *_foreign(domain),
        *_half_marks(domain.examples),
        *_duplicates(domain.examples),
        *_balance(domain),
    ]
    return sorted(found, key=lambda finding: finding.kind != "error")


def without_duplicates(domain: Domain) -> Domain:
    """The domain with the first of equal texts only, slots first."""
    kept: dict[str, Example] = {}
    for example in domain.examples:
        key = normalized(example.text)
        if key not in kept or (example.slots and not kept[key].slots):
            kept[key] = example
    return Domain(list(kept.values()), domain.answers, domain.tools)


def _contradictions(examples: Sequence[Example]) -> list[Finding]:
    first: dict[str, Example] = {}
    found = []
    for example in examples:
        other = first.setdefault(normalized(example.text), example)
        if other.intent != example.intent:
            found.append(Finding(
                "error", example.place,
                f"{example.text[:80]!r} is {example.intent!r} here and {other.intent!r} at {other.place}: "
                "keep the right one.",
            ))  # fmt: skip
    return _cut(found, "contradictory labels")


def _sizes(domain: Domain) -> list[Finding]:
    counts = Counter(example.intent for example in domain.inside)
    places = {e.intent: e.place for e in reversed(domain.inside)}
    found = []
    for intent, n in sorted(counts.items()):
        if n < FEWEST:
            found.append(Finding(
                "error", places[intent],
                f"intent {intent!r} has {n} example, and {FEWEST} is the least: add some, {FEW} or more "
                "are better, or leave the intent out.",
            ))  # fmt: skip
        elif n < FEW:
            found.append(Finding(
                "warning", places[intent],
                f"intent {intent!r} has {n} examples, and with fewer than {FEW} it is often missed: "
                "add some.",
            ))  # fmt: skip
    if len(counts) < 2:
        found.append(Finding(
            "error", next(iter(places.values()), None),
            f"there are {len(counts)} intents, and 2 is the least: add another, or texts for "
            f"{OUT_OF_SCOPE!r}.",
        ))  # fmt: skip
    n_slots = len({name for names in domain.slot_names.values() for name in names})
    for n, most, what in ((len(counts), MAX_INTENTS, "intents"), (n_slots, MAX_SLOTS, "slots")):
        if n > most:
            found.append(
                Finding("error", None, f"there are {n} {what}, and {most} is the most: join some.")
            )
    return found


def _half_marks(examples: Sequence[Example]) -> list[Finding]:
    """Marks of slots that are not whole, and so are text."""
    found = []
    for example in examples:
        mark = _HALF_MARK.search(example.text)
        if mark is not None:
            found.append(Finding(
                "warning", example.place,
                f"{example.text[mark.start() :][:60]!r} is no whole mark of a slot and stays text: write "
                "[value](name).",
            ))  # fmt: skip
    return _cut(found, "marks that are not whole")


def _foreign(domain: Domain) -> list[Finding]:
    """Answers and schemas of intents that have no examples."""
    known = set(domain.intents)
    return [
        Finding("warning", None, f"{intent!r} has {what} and no examples: add some, or correct the name.")
        for what, names in (("an answer", domain.answers), ("a schema", domain.tools))
        for intent in sorted(names.keys() - known - {OUT_OF_SCOPE})
    ]  # fmt: skip


def _duplicates(examples: Sequence[Example]) -> list[Finding]:
    first: dict[str, Example] = {}
    found = []
    for example in examples:
        other = first.setdefault(normalized(example.text), example)
        if other is not example and other.intent == example.intent:
            found.append(Finding(
                "warning", example.place,
                f"{example.text[:80]!r} is at {other.place} already: it counts once; remove one.",
            ))  # fmt: skip
    return _cut(found, "duplicates")


def _balance(domain: Domain) -> list[Finding]:
    counts = Counter(example.intent for example in domain.inside)
    if len(counts) < 2:
        return []
    (most, n_most), (least, n_least) = counts.most_common(1)[0], counts.most_common()[-1]
    if n_most < UNBALANCED * n_least:
        return []
    place = next(e.place for e in domain.inside if e.intent == least)
    return [Finding(
        "warning", place,
        f"intent {least!r} has {n_least} examples and {most!r} {n_most}: each intent counts the same in "
        f"training; add examples to {least!r}.",
    )]  # fmt: skip


def nearest_pairs(
    examples: Sequence[Example], vectors: Floats, *, n_most: int = 5, nearer_than: float = 0.9
) -> list[Finding]:
    """The most similar texts of different intents, one pair for each two intents.

    `vectors`: float32 [n_examples, n_dims], whose cosine is the similarity.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    names = sorted({e.intent for e in examples})
    number = np.array([names.index(e.intent) for e in examples])
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for start in range(0, len(examples), 512):
        likeness = unit[start : start + 512] @ unit.T
        likeness[number[start : start + 512, None] == number] = -1
        for row in range(len(likeness)):
            at = int(likeness[row].argmax())
            one = start + row
            pair = (min(number[one], number[at]), max(number[one], number[at]))
            value = float(likeness[row, at])
            if value > best.get(pair, (nearer_than, 0, 0))[0]:
                best[pair] = (value, one, at)
    found = []
    for value, one, other in sorted(best.values(), reverse=True)[:n_most]:
        a, b = sorted((examples[one], examples[other]), key=lambda example: example.place)
        found.append(Finding(
            "warning", a.place,
            f"{a.text[:60]!r} ({a.intent}) is very near to {b.text[:60]!r} ({b.intent}, {b.place}), likeness "
            f"{value:.2f}: make them differ, or join the intents.",
        ))  # fmt: skip
    return found


def confused_pairs(
    right: Sequence[str], chosen: Sequence[str], *, n_least: int = 3, n_most: int = 5
) -> list[Finding]:
    """The intents that a model confuses most: the label and the choice of each text."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    totals = Counter(right)
    for label, choice in zip(right, chosen, strict=True):
        if label != choice:
            counts[label, choice] += 1
    found = []
    for (label, choice), n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:n_most]:
        if n >= n_least and n >= 0.1 * totals[label]:
            found.append(Finding(
                "warning", None,
                f"{n} of {totals[label]} texts of {label!r} are taken for {choice!r}: add examples that tell "
                "them apart, or join the two.",
            ))  # fmt: skip
    return found


def _cut(found: list[Finding], what: str) -> list[Finding]:
    if len(found) <= _SHOWN:
        return found
    kind = found[0].kind
    return [*found[:_SHOWN], Finding(kind, None, f"and {len(found) - _SHOWN} more {what}.")]
