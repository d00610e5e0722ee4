"""The scope gate of a domain model, from its own examples: what the head answers to texts that it has not
seen, compared with the examples of the other folds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.errors import InvalidParameter
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.head_training import Head, LabelledTexts
from edgeagent.forge.domain.softmax_head import folds, softmax
from edgeagent.routing.scope_gate import ScopeFile
from edgeagent.routing.training.scope_training import (
    Answer,
    counted,
    examples_of,
    gates_from,
    signals_of,
)

N_FOLDS = 5


def domain_scope(
    name: str, sha256: str, texts: LabelledTexts, head: Head, seed: int
) -> ScopeFile | None:
    """The gate of the model with this file; None where there are too few texts for one."""
    given = [texts.texts[n] for n in head.kept]
    answers = _answers(given, head)
    signals, is_outside = [], []
    for part in folds(head.labels, N_FOLDS, seed):
        mine = set(part.tolist())
        others = _inside(given, head, [n for n in range(len(given)) if n not in mine])
        file = examples_of(others)
        held = counted([answers[n] for n in part if answers[n].intent in file.intents])
        if held:
            signals.append(signals_of(held, file)[0])
            is_outside += [one.wanted is None for one in held]
    try:
        gates = gates_from(np.concatenate(signals), np.array(is_outside, bool), seed=seed)
    except InvalidParameter:
        return None
    file = examples_of(_inside(given, head, range(len(given))))
    return msgspec.structs.replace(file, models={sha256: {ALL: gates, name: gates}})


def _inside(given: Sequence[str], head: Head, rows: Sequence[int]) -> list[tuple[str, str]]:
    found = [(given[n], head.classes[head.labels[n]]) for n in rows]
    return [(text, intent) for text, intent in found if intent != OUT_OF_SCOPE]


def _answers(given: Sequence[str], head: Head) -> list[Answer]:
    """What a head that was trained without it answers to each text, as the daemon tells it."""
    shares = softmax(head.logits).astype(np.float64)
    found = []
    for text, label, row in zip(given, head.labels, shares, strict=True):
        best = int(row[:-1].argmax())
        next_best = float(np.delete(row, best).max())
        wanted = head.classes[label]
        found.append(
            Answer(
                text, wanted if wanted != OUT_OF_SCOPE else None, head.classes[best], float(row[best]),
                float(row[best]) - next_best,
            )
        )  # fmt: skip
    return found
