"""The steps of a training with torch: once with a fifth of the texts held out, which gives the figures and
the threshold, and once with all of them, which gives the model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgeagent.errors import ForgeFailed
from edgeagent.forge.decoder import Decoder
from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.adaptation import (
    DomainTask,
    adapt,
    decoder_of,
    epochs_within,
    logits_of,
    teach,
    weights_of,
)
from edgeagent.forge.domain.call_rows import calls_of, first_rows
from edgeagent.forge.domain.checks import Finding, confused_pairs
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.features import cores
from edgeagent.forge.domain.head_training import Head, LabelledTexts, Tell, write_encoder
from edgeagent.forge.domain.lessons import Lessons, prepare, varied
from edgeagent.forge.domain.softmax_head import Ids
from edgeagent.forge.domain.thresholds import Calibration, calibrate
from edgeagent.forge.domain.trunk import EMBEDDING, Trunk
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.forge.domain.workspace import Workspace

if TYPE_CHECKING:
    from edgeagent.forge.domain.build import BuildOptions

N_FOLDS = 5
# Of the time that is given: for loading, writing and checking, and what a machine that became busy gets
# beside it before the training is given up.
_SLACK, _GRACE, _LEAST_GRACE_S = 0.2, 0.5, 120.0


@dataclass(frozen=True)
class Trained:
    """`rows` of calls and all `weights`, as `Trunk.write` takes them; `logits` of all texts by them.
    `calibration` and `findings` are of the texts that were held out."""

    rows: Floats
    weights: Mapping[str, Floats]
    logits: Floats
    calibration: Calibration
    findings: list[Finding]


async def train_with_torch(
    domain: Domain,
    trunk: Trunk,
    workspace: Workspace,
    texts: LabelledTexts,
    states: Floats,
    head: Head,
    options: BuildOptions,
    left_s: float,
    tell: Tell,
) -> Trained:
    """Train within `left_s` seconds. Raises: ForgeFailed where that is too short."""
    started = time.monotonic()
    torch.set_num_threads(max(1, min(cores(), os.cpu_count() or 1)))
    encoder_path = write_encoder(trunk, workspace.work)
    variants = varied(domain, texts, options.seed)
    lessons = await prepare(domain, variants, encoder_path, options.teacher, tell)
    run = _Runs(domain, trunk, workspace, texts, states, head, lessons, options.seed, tell)
    held = head.kept[softmax_head.folds(texts.labels[head.kept], N_FOLDS, options.seed)[0]]
    known = np.setdiff1d(head.kept, held)
    deadline = started + (1 - _SLACK) * left_s
    run.choose_epochs(known, max(1.0, deadline - time.monotonic()))
    deadline += max(_GRACE * left_s, _LEAST_GRACE_S)
    first = run.train("held-out", known, deadline)
    n_classes = len(texts.classes)
    found = logits_of(first, lessons, held, n_classes)
    last = run.train("all", head.kept, deadline)
    labels = texts.labels[held]
    inner = labels < n_classes - 1
    chosen = found[inner, : n_classes - 1].argmax(1)
    weights = weights_of(last)
    table = weights[EMBEDDING]
    n = trunk.n_control
    return Trained(
        table[n : n + len(calls_of(domain))],
        weights,
        logits_of(last, lessons, np.arange(texts.n_examples), n_classes),
        calibrate(found, labels, n_classes - 1),
        confused_pairs(
            [texts.classes[i] for i in labels[inner]], [texts.classes[i] for i in chosen]
        ),
    )


class _Runs:
    """The two trainings, with the same number of epochs."""

    def __init__(
        self,
        domain: Domain,
        trunk: Trunk,
        workspace: Workspace,
        texts: LabelledTexts,
        states: Floats,
        head: Head,
        lessons: Lessons,
        seed: int,
        tell: Tell,
    ) -> None:
        self._domain, self._trunk, self._workspace = domain, trunk, workspace
        self._texts, self._states, self._head = texts, states, head
        self._lessons, self._seed, self._tell = lessons, seed, tell
        self._n_epochs = 0
        self._n_steps = 0

    def choose_epochs(self, known: Ids, seconds: float) -> None:
        """As many as fit twice into the time; the same again after an interruption."""
        path = self._workspace.work / "epochs"
        task = self._task(known, lambda: None)
        if not path.is_file():
            torch.manual_seed(self._seed)
            n = epochs_within(task, seconds / (1 + len(self._head.kept) / len(known)))
            path.write_text(str(n), encoding="utf-8")
        self._n_epochs = int(path.read_text(encoding="utf-8"))
        n_all = len(self._task(self._head.kept, lambda: None).batches(0))
        self._n_steps = self._n_epochs * (len(task.batches(0)) + n_all)

    def _task(self, known: Ids, tell: Callable[[], None]) -> DomainTask:
        labels, n_classes = self._texts.labels, len(self._texts.classes)
        rows = softmax_head.train(
            self._states[known], labels[known], n_classes, penalty=self._head.penalty
        )
        torch.manual_seed(self._seed)
        decoder = decoder_of(self._trunk, first_rows(self._trunk, self._domain, rows))
        taught = teach(self._lessons, labels, n_classes, known)
        return DomainTask(
            decoder,
            self._lessons,
            labels,
            known,
            taught,
            n_classes=n_classes,
            seed=self._seed,
            tell=tell,
        )

    def train(self, name: str, known: Ids, deadline: float) -> Decoder:
        task = self._task(known, lambda: self._tell("training all", 1, self._n_steps))
        if not adapt(
            task.decoder, task, self._workspace.work / name, n_epochs=self._n_epochs, seed=self._seed,
            until=lambda: time.monotonic() > deadline,
        ):  # fmt: skip
            raise ForgeFailed(
                "The training did not end in time: run the command again, which goes on, or give --minutes."
            )
        task.decoder.eval()
        return task.decoder
