"""Trains all layers of a domain model with torch, from the rows of the head-only training on.

A linear classifier first, then all weights with a small rate: trained so, a small model forgets less of
what it knew than from random rows (Kumar et al. 2022, arXiv:2202.10054). A sentence encoder teaches where one
is installed: a classifier on its vectors says how probable each intent is for variants of the texts, and
the last state learns to estimate the vector.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeagent.forge.assistant_task import EncodedItem, padded
from edgeagent.forge.batches import bucketed
from edgeagent.forge.decoder import Decoder, DecoderShape
from edgeagent.forge.domain import softmax_head
from edgeagent.forge.domain.lessons import Lessons
from edgeagent.forge.domain.softmax_head import Ids
from edgeagent.forge.domain.trunk import EMBEDDING, NORM, Trunk
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.forge.export import PARTS
from edgeagent.forge.intent_classes import distilled
from edgeagent.forge.trainer import Trainer, TrainingPlan

BATCH_TOKENS = 1024
RATE, ROW_RATE = 3e-4, 1e-3
MOST_EPOCHS, FEWEST_EPOCHS = 20, 3
TEACHER, TEMPERATURE, HINT, SLOTS, ANY_TOKEN = 0.5, 2.0, 1.0, 0.5, 0.1
_FIRST_INTENT = 3


def decoder_of(trunk: Trunk, rows: Floats) -> Decoder:
    """The trunk with these rows of calls, as a module."""
    words = trunk.word_rows
    n = trunk.n_control
    shape = DecoderShape(
        n_vocab=len(words) + len(rows), n_embd=trunk.n_embd, n_layers=trunk.meta("block_count"),
        n_head=trunk.meta("attention.head_count"), n_head_kv=trunk.meta("attention.head_count_kv"),
        n_ff=trunk.meta("feed_forward_length"), n_ctx=trunk.meta("context_length"),
        rope_base=trunk.meta("rope.freq_base"), norm_eps=trunk.meta("attention.layer_norm_rms_epsilon"),
    )  # fmt: skip
    decoder = Decoder(shape, dropout=0.1)
    state = {
        ours: torch.from_numpy(trunk.dense(theirs).copy())
        for ours, theirs in _names(shape.n_layers).items()
    }
    table = np.concatenate([words[:n], rows, words[n:]])
    state["token_embd.weight"] = torch.from_numpy(table)
    decoder.load_state_dict(state)
    return decoder


def weights_of(decoder: Decoder) -> dict[str, Floats]:
    """The weights by their names in a model file."""
    state = decoder.state_dict()
    names = _names(decoder.shape.n_layers) | {"token_embd.weight": EMBEDDING}
    return {theirs: state[ours].float().numpy() for ours, theirs in names.items()}


def _names(n_layers: int) -> dict[str, str]:
    names = {
        f"blocks.{n}.{ours}.weight": f"blk.{n}.{theirs}.weight"
        for n in range(n_layers) for ours, theirs in PARTS.items()
    }  # fmt: skip
    return names | {"output_norm.weight": NORM}


@dataclass(frozen=True)
class Taught:
    """What the teacher says of the texts of one training: log-probabilities, float32
    [n_variants][n, n_classes], and centred unit vectors [n_variants][n, n_dims]."""

    logs: list[Tensor]
    vectors: list[Tensor]


def teach(lessons: Lessons, labels: Ids, n_classes: int, known: Ids) -> Taught | None:
    """A classifier on the teacher's vectors of the `known` texts, asked about all variants."""
    if lessons.vectors is None:
        return None
    plain = lessons.vectors[0]
    rows = softmax_head.train(plain[known], labels[known], n_classes, penalty=1e-3)
    middle = plain[known].mean(0)
    logs = [torch.log_softmax(torch.from_numpy(v @ rows.T), -1) for v in lessons.vectors]
    unit = [F.normalize(torch.from_numpy(v - middle), dim=-1) for v in lessons.vectors]
    return Taught(logs, unit)


class DomainTask:
    """A `trainer.TrainingTask`: the texts `known`, in one variant each epoch. Each step calls `tell`."""

    def __init__(
        self,
        decoder: Decoder,
        lessons: Lessons,
        labels: Ids,
        known: Ids,
        taught: Taught | None,
        *,
        n_classes: int,
        seed: int,
        tell: Callable[[], None],
    ) -> None:
        self.decoder, self._lessons, self._taught = decoder, lessons, taught
        self._labels = torch.from_numpy(labels)
        self._known, self._n_classes, self._seed, self._tell = known, n_classes, seed, tell
        self._n_scored = 0
        if taught is not None:
            decoder.take_hints(taught.vectors[0].shape[1])

    def batches(self, epoch: int) -> list[Any]:
        # The first variant decides the number of steps of every epoch.
        first = self._lessons.variants[0]
        lengths = [len(first[i].prompt) + len(first[i].answer) + 2 for i in self._known]
        found = bucketed(lengths, BATCH_TOKENS, self._seed, epoch)
        return [(epoch, [int(self._known[i]) for i in batch]) for batch in found]

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        epoch, indices = batch
        n_variants = len(self._lessons.variants)
        numbers = [(epoch + i) % n_variants if epoch else 0 for i in indices]
        made = padded([
            EncodedItem(lesson.prompt, lesson.answer)
            for n, i in zip(numbers, indices, strict=True)
            for lesson in [self._lessons.variants[n][i]]
        ])  # fmt: skip
        hidden = self.decoder(made.tokens[:, :-1])
        at_intent = hidden[torch.arange(len(indices)), made.n_prompt - 1]
        labels = self._labels[indices]
        logits = self.decoder.logits(at_intent, _FIRST_INTENT, self._n_classes).float()
        taught = None
        if self._taught is not None:
            taught = torch.stack(
                [self._taught.logs[n][i] for n, i in zip(numbers, indices, strict=True)]
            )
        loss = distilled(logits, labels, taught, weight=TEACHER, temperature=TEMPERATURE)
        every = self.decoder.logits(at_intent).float()
        loss = loss + ANY_TOKEN * F.cross_entropy(every, labels + _FIRST_INTENT)
        loss = loss + SLOTS * self._slot_loss(hidden, made)
        if self._taught is not None and self.decoder.hint is not None:
            wanted = torch.stack(
                [self._taught.vectors[n][i] for n, i in zip(numbers, indices, strict=True)]
            )
            likeness = F.cosine_similarity(self.decoder.hint(at_intent).float(), wanted)
            loss = loss + HINT * (1 - likeness).mean()
        self._tell()
        return loss, int(made.n_all.sum())

    def _slot_loss(self, hidden: Tensor, made: Any) -> Tensor:
        """Of the tokens behind the intent, per text."""
        position = torch.arange(hidden.shape[1])
        counts = (position >= made.n_prompt[:, None]) & (position < made.n_all[:, None] - 1)
        chosen = counts.flatten().nonzero().squeeze(1)
        logits = self.decoder.logits(hidden.flatten(0, 1)[chosen]).float()
        wanted = made.tokens[:, 1:].flatten()[chosen]
        return F.cross_entropy(logits, wanted, reduction="sum") / len(made.tokens)

    def score(self) -> dict[str, float]:
        """The last weights count: there is nothing held out that could choose among them."""
        self._n_scored += 1
        return {"score": float(self._n_scored)}


@torch.no_grad()
def logits_of(decoder: Decoder, lessons: Lessons, which: Ids, n_classes: int) -> Floats:
    """The logits of the intents for the texts themselves: float32 [n, n_classes]."""
    decoder.eval()
    found = np.zeros((len(which), n_classes), np.float32)
    for start in range(0, len(which), 64):
        part = which[start : start + 64]
        made = padded([EncodedItem(lessons.variants[0][int(i)].prompt, []) for i in part])
        hidden = decoder(made.tokens[:, : decoder.shape.n_ctx])
        at_intent = hidden[torch.arange(len(part)), made.n_prompt - 1]
        found[start : start + 64] = (
            decoder.logits(at_intent, _FIRST_INTENT, n_classes).float().numpy()
        )
    return found


def adapt(
    decoder: Decoder,
    task: DomainTask,
    folder: Path,
    *,
    n_epochs: int,
    seed: int,
    until: Callable[[], bool],
) -> bool:
    """Train to the end of the epochs; goes on from a checkpoint in `folder`. False if `until` ended it, which
    leaves a checkpoint."""
    plan = TrainingPlan(
        epochs=n_epochs, learning_rate=RATE, batch_tokens=BATCH_TOKENS, warmup=0.1, seed=seed,
        evaluate_every=n_epochs, average=0.98, group_rates={"token_embd": ROW_RATE, "hint": 3e-3},
    )  # fmt: skip
    trainer = Trainer(decoder, task, plan, folder, is_quiet=True)
    trainer.resume()
    return bool(trainer.run(until=until, save_every_s=60))


def epochs_within(task: DomainTask, seconds: float) -> int:
    """How many epochs fit into this time on this machine, by the time of a few steps."""
    batches = task.batches(0)
    some = batches[:: max(1, len(batches) // 3)][:3]
    task.loss(some[0])[0].backward()  # the first one also prepares kernels
    started = time.monotonic()
    n_texts = 0
    for batch in some:
        task.loss(batch)[0].backward()
        n_texts += len(batch[1])
    task.decoder.zero_grad(set_to_none=True)
    n_all = sum(len(batch[1]) for batch in batches)
    epoch_s = 1.2 * (time.monotonic() - started) * n_all / n_texts
    return int(min(MOST_EPOCHS, max(FEWEST_EPOCHS, seconds / epoch_s)))
