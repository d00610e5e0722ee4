"""What a domain model learns from with torch: texts and variants as tokens, and a teacher's view of them.

llama.cpp tokenizes, so that no other tokenizer has to agree with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeagent.forge.augment import Augmenter
from edgeagent.forge.datasets import Item
from edgeagent.forge.domain.call_rows import calls_of
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.features import encoder, tokenized, vectors
from edgeagent.forge.domain.head_training import LabelledTexts, Tell
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.types.intents import LAST_SLOT, NO_SLOTS, intent_text, slot_text

N_VARIANTS = 4
USER, ASSISTANT, END = 0, 1, 2


@dataclass(frozen=True)
class Lesson:
    """The tokens of a text's prompt, and of its answer from the intent on."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Lessons:
    """By variant and text. Variant 0 are the texts themselves. `vectors` are the teacher's, float32
    [n_variants][n_texts, n_dims], or None."""

    variants: list[list[Lesson]]
    vectors: list[Floats] | None


def varied(domain: Domain, texts: LabelledTexts, seed: int) -> list[list[Item]]:
    """Every text in `N_VARIANTS` variants."""
    slots = [e.slots for e in domain.examples] + [()] * (len(texts.texts) - texts.n_examples)
    items = [
        Item(text, "assistant", texts.classes[label], own)
        for text, label, own in zip(texts.texts, texts.labels, slots, strict=True)
    ]
    augmenter = Augmenter(items, seed)
    return [
        [augmenter.variant(item, n, number) for n, item in enumerate(items)]
        for number in range(N_VARIANTS)
    ]


async def prepare(
    domain: Domain,
    variants: Sequence[Sequence[Item]],
    encoder_path: Path,
    teacher: Path | None,
    tell: Tell,
) -> Lessons:
    """Tokenize everything with the file at `encoder_path`, which has one call token, and ask the teacher."""
    calls = calls_of(domain)
    number = {text: USER + 3 + n for n, text in enumerate(calls)}
    values = sorted({_escaped(s.value) for items in variants for i in items for s in i.slots})
    texts = [[item.text.strip() for item in items] for items in variants]
    every = [text for some in texts for text in some]
    async with encoder(encoder_path) as client:
        ids = await tokenized(client, [*every, *values])
    moved = [[_moved(i, len(calls)) for i in one] for one in ids]
    of_value = dict(zip(values, moved[len(every) :], strict=True))
    slotted = domain.slot_names
    found, at = [], 0
    for items in variants:
        lessons = []
        for item in items:
            prompt = [USER, *moved[at], ASSISTANT]
            lessons.append(Lesson(prompt, _answer(item, slotted, number, of_value)))
            at += 1
        found.append(lessons)
    if teacher is None:
        return Lessons(found, None)
    async with encoder(teacher) as client:
        asked = await vectors(client, every, lambda n: tell("asking teacher", n, len(every)))
    parts = np.split(asked, np.cumsum([len(some) for some in texts])[:-1])
    return Lessons(found, list(parts))


def _answer(
    item: Item,
    slotted: dict[str, tuple[str, ...]],
    number: dict[str, int],
    values: dict[str, list[int]],
) -> list[int]:
    """The intent, its slots in the order of the text (of a repeated name the first), and the end."""
    has_slots = item.intent in slotted
    ids = [number[intent_text(item.intent, has_slots)]]
    if has_slots:
        first: dict[str, str] = {}
        for slot in item.slots:
            first.setdefault(slot.name, slot.value)
        for n, (name, value) in enumerate(first.items()):
            ids += [number[slot_text(name, is_first=n == 0)], *values[_escaped(value)]]
        ids.append(number[LAST_SLOT if first else NO_SLOTS])
    return [*ids, END]


def _escaped(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _moved(token: int, n_calls: int) -> int:
    """A token of the encoder's vocabulary, which has one call, in that of the model."""
    return token if token <= END + 1 else token - 1 + n_calls
