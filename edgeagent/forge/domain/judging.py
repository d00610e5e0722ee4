"""Chooses a base model and trains a head on it: on all examples, or, where these are more than a device can
compare with each other, within a budget of time.

Many examples are put in an order in which every beginning has all intents in like shares. The first few
thousand choose the base model and the penalty, and give figures, thresholds and the scope gate. Then as many
of the others as there is time for are read, and the rows of the chosen base model learn from all of these.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.example import Domain, Example
from edgeagent.forge.domain.head_training import (
    PART,
    Base,
    Head,
    LabelledTexts,
    Tell,
    states_of,
    train_head,
)
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.forge.domain.workspace import Workspace

MOST_JUDGED = 12 * PART  # examples that are compared with each other
# Shares of the budget after which a stage ends with what it has: the base models read and judged, the other
# examples read, the rows trained. The rest is for writing and checking.
_JUDGED_BY, _READ_BY, _TRAINED_BY = 0.45, 0.75, 0.92


@dataclass(frozen=True)
class Judged:
    """The chosen base model and its head, whose rows have learnt from `n_learnt` examples. `domain`, `texts`
    and `states` are those that it was judged by; `tried` are the heads of all base models."""

    base: Base
    head: Head
    domain: Domain
    texts: LabelledTexts
    states: Floats
    tried: list[tuple[Base, Head]]
    n_learnt: int


def spread(examples: Sequence[Example], seed: int) -> list[Example]:
    """All examples, those of the intents in turn; the same for the same seed."""
    by_intent: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_intent[example.intent].append(example)
    for intent in sorted(by_intent):
        random.Random(f"{seed}/{intent}").shuffle(by_intent[intent])
    turns = zip_longest(*(by_intent[intent] for intent in sorted(by_intent)))
    return [example for turn in turns for example in turn if example is not None]


def first(domain: Domain, n: int) -> Domain:
    return replace(domain, examples=domain.examples[:n])


async def judge(
    domain: Domain,
    bases: Sequence[Base],
    workspace: Workspace,
    seed: int,
    minutes: float,
    tell: Tell,
) -> Judged:
    """Choose a base model and train on it; `minutes` bound this where there are many examples.

    Raises: ForgeFailed.
    """
    if len(domain.examples) > MOST_JUDGED:
        return await _judge_many(domain, bases, workspace, seed, 60 * minutes, tell)
    texts = LabelledTexts.of(domain)
    found = []
    for base in bases:
        states = await states_of(base, texts.texts, workspace, tell)
        found.append((base, states, train_head(texts, states, seed, tell)))
    base, states, head = max(found, key=lambda one: one[2].goodness)
    tried = [(base, head) for base, _, head in found]
    return Judged(base, head, domain, texts, states, tried, len(domain.examples))


async def _judge_many(
    domain: Domain,
    bases: Sequence[Base],
    workspace: Workspace,
    seed: int,
    seconds: float,
    tell: Tell,
) -> Judged:
    started = time.monotonic()

    def by(share: float) -> float:
        return started + share * seconds

    domain = replace(domain, examples=spread(domain.examples, seed))
    whole = LabelledTexts.of(domain)
    every, aside = whole.texts[: whole.n_examples], whole.texts[whole.n_examples :]
    # Reading takes a half of the time for judging, the same for each base model.
    n = MOST_JUDGED
    found: list[tuple[Base, Floats, Floats]] = []
    for number, base in enumerate(bases):
        until = by(_JUDGED_BY * (number + 1) / (2 * len(bases)))
        states = await states_of(base, every[:n], workspace, tell, until=until)
        found.append((base, states, await _aside(base, aside, workspace, tell)))
        n = min(n, len(states))
    judged = first(domain, n)
    outside = np.full(len(aside), len(whole.classes) - 1)
    texts = LabelledTexts(
        every[:n] + aside, np.concatenate([whole.labels[:n], outside]), whole.classes, n
    )
    tried = []
    for number, (base, states, others) in enumerate(found):
        both = np.concatenate([states[:n], others]) if aside else states[:n]
        share = _JUDGED_BY * (0.5 + (number + 1) / (2 * len(bases)))
        tried.append((base, both, train_head(texts, both, seed, tell, until=by(share))))
    base, states, head = max(tried, key=lambda one: one[2].goodness)
    read = await states_of(base, every, workspace, tell, until=by(_READ_BY))
    x = np.concatenate([read, states[head.kept[head.kept >= n]]])
    y = np.concatenate([whole.labels[: len(read)], texts.labels[head.kept[head.kept >= n]]])
    rows = softmax_head.train(
        x, y, len(whole.classes), penalty=head.penalty, until=by(_TRAINED_BY),
        tell=lambda n: tell("training on all", n, softmax_head.N_STEPS),
    )  # fmt: skip
    return Judged(
        base, replace(head, rows=rows), judged, texts, states, [(one, h) for one, _, h in tried], len(read)
    )  # fmt: skip


async def _aside(base: Base, aside: Sequence[str], workspace: Workspace, tell: Tell) -> Floats:
    """The states of everyday texts."""
    if not aside:
        return np.zeros((0, 0), np.float32)
    return await states_of(base, aside, workspace, tell, name="aside")
