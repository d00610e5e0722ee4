"""Trains a domain model without torch: new rows for its intents, on what a base model makes of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.background import ENOUGH, background, far_from
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.features import encoder, prompt_states, vectors
from edgeagent.forge.domain.softmax_head import Ids
from edgeagent.forge.domain.thresholds import Calibration, calibrate
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.forge.domain.workspace import Workspace

# A stage, how much more of it is done, and how much there is in all.
Tell = Callable[[str, int, int | None], None]
N_FOLDS = 5
PART = 512  # texts whose states are kept in one file
Base = Trunk | EncoderTrunk


@dataclass(frozen=True)
class Head:
    """`classes` by number, out-of-scope last; `rows` float32 [n_classes, n_embd] are their tokens'.

    It has learnt from the texts `kept`. `logits` are those of each of them by a head that was trained
    without it, `labels` their classes; `calibration` is of these.
    """

    classes: tuple[str, ...]
    rows: Floats
    penalty: float
    kept: Ids
    logits: Floats
    labels: Ids
    calibration: Calibration

    @property
    def goodness(self) -> tuple[float, float]:
        """The accuracy, then the mean log-probability, of texts that were not learnt from."""
        shares = softmax_head.softmax(self.logits)[np.arange(len(self.labels)), self.labels]
        return self.calibration.accuracy, float(np.log(np.maximum(shares, 1e-9)).mean())


@dataclass(frozen=True)
class LabelledTexts:
    """All texts that the head learns from, and their classes: the examples first, then everyday texts."""

    texts: list[str]
    labels: Ids
    classes: tuple[str, ...]
    n_examples: int

    @classmethod
    def of(cls, domain: Domain) -> LabelledTexts:
        classes = (*domain.intents, OUT_OF_SCOPE)
        number = {name: i for i, name in enumerate(classes)}
        known = {e.text.casefold() for e in domain.examples}
        added = [t for t in background() if t not in known] if len(domain.outside) < ENOUGH else []
        labels = [number[e.intent] for e in domain.examples] + [len(classes) - 1] * len(added)
        texts = [e.text for e in domain.examples] + added
        return cls(texts, np.array(labels), classes, len(domain.examples))


def write_encoder(trunk: Trunk, folder: Path) -> Path:
    """The trunk as a file that gives hidden states; its vocabulary has one call token."""
    path = folder / "encoder.gguf"
    if not path.is_file():
        trunk.write(
            path, ["}}"], np.zeros((1, trunk.n_embd), np.float32), name="encoder",
            description="last hidden states", is_encoder=True,
        )  # fmt: skip
    return path


async def states_of(
    trunk: Base,
    texts: Sequence[str],
    workspace: Workspace,
    tell: Tell,
    *,
    name: str = "",
    until: float | None = None,
) -> Floats:
    """What a head is trained on, computed in parts that are kept: the states of texts by an assistant, the
    vectors by a sentence encoder, with a last column of ones there.

    `name` tells several lists of texts apart. After the time `until` (monotonic) only parts that are there
    count, and at least one: these are the states of the first texts.
    """
    part_name = ("vectors" if isinstance(trunk, EncoderTrunk) else "states") + name
    size = PART
    todo = [n for n in range(0, len(texts), size) if workspace.load(f"{part_name}-{n}") is None]
    n_there = len(texts)
    if todo:
        path = (
            trunk.path if isinstance(trunk, EncoderTrunk) else write_encoder(trunk, workspace.work)
        )
        async with encoder(path) as client:
            for start in todo:
                if start and until is not None and time.monotonic() > until:
                    n_there = start
                    break
                part = texts[start : start + size]

                def told(n: int) -> None:
                    tell(f"reading texts{name and ' ' + name}", n, len(texts))

                if isinstance(trunk, EncoderTrunk):
                    made = await vectors(client, part, told)
                else:
                    made = await prompt_states(client, trunk.norm, part, told)
                workspace.save(f"{part_name}-{start}", made)
    found: list[Floats] = []
    for start in range(0, n_there, size):
        part_states = workspace.load(f"{part_name}-{start}")
        assert part_states is not None
        found.append(part_states)
    states = np.concatenate(found)
    if isinstance(trunk, EncoderTrunk):
        return np.pad(states, ((0, 0), (0, 1)), constant_values=1)
    return states


def train_head(
    texts: LabelledTexts, states: Floats, seed: int, tell: Tell, *, until: float | None = None
) -> Head:
    """Cross-validates the penalty, calibrates with the held-out logits, and trains on all texts.

    After the time `until` (monotonic) no other penalty is tried.
    """
    n, n_classes = texts.n_examples, len(texts.classes)
    kept = np.arange(n)
    if len(states) > n:
        kept = np.concatenate([kept, np.array(far_from(states[:n], states[n:]), np.int64) + n])
    x, y = states[kept], texts.labels[kept]
    n_folds = int(min(N_FOLDS, max(2, np.bincount(y).max())))
    total = n_folds * len(softmax_head.PENALTIES) + 1
    held = softmax_head.cross_validate(
        x,
        y,
        n_classes,
        seed=seed,
        n_folds=n_folds,
        until=until,
        tell=lambda n: tell("training", n, total),
    )
    rows = softmax_head.train(x, y, n_classes, penalty=held.penalty)
    tell("training", 1, total)
    found = calibrate(held.logits, y, n_classes - 1)
    return Head(texts.classes, rows, held.penalty, kept, held.logits, y, found)
