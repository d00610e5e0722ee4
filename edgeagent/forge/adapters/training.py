"""Trains an adapter: the loss of the answers' tokens, prompts given, within a number of minutes.

The held-out pairs are measured before, after each epoch, and at the end; the best state is kept. A training
that was interrupted goes on from its last checkpoint, with the same order of pairs.

Source of the optimizer: Loshchilov and Hutter 2019, arXiv:1711.05101.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeagent.errors import ForgeFailed
from edgeagent.forge.adapters.base_model import BaseModel
from edgeagent.forge.adapters.chat_tokens import TokenPair
from edgeagent.forge.adapters.lora import Adapter
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster

BATCH_TOKENS = 1024
CHECKPOINT_S = 30.0
WARM_UP = 0.05  # of the training
CLIP = 1.0
PATIENCE = 2  # epochs without a better held-out loss

# More is done: the part of the training, 0..1, and the loss of the last step.
Tell = Callable[[float, float], object]


@dataclass(frozen=True)
class TrainingOptions:
    """`seconds` bounds the training itself; `rate` is the highest learning rate."""

    n_epochs: int
    seconds: float
    rate: float
    seed: int


@dataclass(frozen=True)
class Trained:
    """The best state, and perplexities of the held-out answers. `is_complete` False: the time was over
    before the epochs were."""

    state: dict[str, Tensor]
    before: float
    after: float
    losses: list[float]
    n_steps: int
    is_complete: bool


@dataclass
class _Progress:
    """What a checkpoint holds beside the values."""

    key: str
    before: float
    epoch: int = 0
    step: int = 0  # of this epoch
    n_steps: int = 0
    spent_s: float = 0.0
    best: float = math.inf
    n_worse: int = 0
    epoch_loss: float = 0.0


class Training:
    """`key` names what is trained: a checkpoint of something else is not taken."""

    def __init__(
        self,
        model: BaseModel,
        adapter: Adapter,
        train: Sequence[TokenPair],
        held: Sequence[TokenPair],
        options: TrainingOptions,
        checkpoint: Path,
        key: str,
    ) -> None:
        self._model, self._adapter, self._options = model, adapter, options
        self._train, self._held = train, held
        self._checkpoint, self._key = checkpoint, key
        self._is_bf16 = bf16_is_faster()
        parameters = list(adapter.parameters())
        self._optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.01)
        self._losses: list[float] = []
        self._best: dict[str, Tensor] = {}

    def run(self, tell: Tell) -> Trained:
        """Train, or go on. Raises: ForgeFailed where the loss is no number."""
        now = self._resumed() or _Progress(self._key, math.nan)
        if not self._best:
            now.before = self.perplexity()
            self._best, now.best = self._adapter.state(), math.log(now.before)
        started = time.monotonic() - now.spent_s
        saved = time.monotonic()
        while now.epoch < self._options.n_epochs and now.n_worse < PATIENCE:
            batches = self._batches(now.epoch)
            while now.step < len(batches):
                now.spent_s = time.monotonic() - started
                part = max(
                    (now.epoch + now.step / len(batches)) / self._options.n_epochs,
                    now.spent_s / self._options.seconds,
                )
                if part >= 1:
                    return self._ended(now, is_complete=False)
                loss = self._step(batches[now.step], part)
                now.epoch_loss += loss
                now.step += 1
                now.n_steps += 1
                tell(part, loss)
                if time.monotonic() - saved > CHECKPOINT_S:
                    self._save(now)
                    saved = time.monotonic()
            self._end_epoch(now, len(batches))
            self._save(now)
        return self._ended(now, is_complete=True)

    def _end_epoch(self, now: _Progress, n_batches: int) -> None:
        self._losses.append(now.epoch_loss / n_batches)
        self._measure(now)
        now.epoch, now.step, now.epoch_loss = now.epoch + 1, 0, 0.0

    def _measure(self, now: _Progress) -> None:
        """Keep this state if it is the best so far."""
        found = math.log(self.perplexity())
        now.n_worse = 0 if found < now.best else now.n_worse + 1
        if found < now.best:
            now.best, self._best = found, self._adapter.state()

    def _ended(self, now: _Progress, *, is_complete: bool) -> Trained:
        if not is_complete and now.step:
            self._losses.append(now.epoch_loss / now.step)
            self._measure(now)
        return Trained(
            self._best, now.before, math.exp(now.best), self._losses, now.n_steps, is_complete
        )

    def perplexity(self) -> float:
        """Of the tokens of the held-out answers."""
        total, n = 0.0, 0
        with torch.no_grad():
            for batch in _batched(list(range(len(self._held))), self._held):
                losses = self._token_losses([self._held[i] for i in batch])
                total, n = total + float(losses.sum()), n + len(losses)
        return math.exp(min(total / n, 50.0))

    def _step(self, batch: list[int], part: float) -> float:
        rate = self._options.rate * min(1.0, part / WARM_UP + 0.02) * (1 - part)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._token_losses([self._train[i] for i in batch]).mean()
        if not math.isfinite(value := float(loss.detach())):
            raise ForgeFailed("The loss is no number any more: train with a lower --rate.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._adapter.parameters()), CLIP)
        self._optimizer.step()
        return value

    def _token_losses(self, pairs: Sequence[TokenPair]) -> Tensor:
        """float32 [n]: of every token of the answers."""
        width = max(len(pair.tokens) for pair in pairs)
        tokens = torch.zeros(len(pairs), width, dtype=torch.long)
        is_answer = torch.zeros(len(pairs), width, dtype=torch.bool)
        for row, pair in enumerate(pairs):
            tokens[row, : len(pair.tokens)] = torch.tensor(pair.tokens)
            is_answer[row, pair.n_prompt : len(pair.tokens)] = True
        with autocast(self._is_bf16):
            hidden = self._model.decoder(tokens[:, :-1])
            logits = self._model.logits(hidden[is_answer[:, 1:]])
        return F.cross_entropy(logits.float(), tokens[:, 1:][is_answer[:, 1:]], reduction="none")

    def _batches(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self._train)))
        draw = random.Random(f"{self._options.seed} {epoch}")
        draw.shuffle(order)
        # Neighbours of one length need little padding.
        order.sort(key=lambda i: len(self._train[i].tokens) // 16)
        batches = _batched(order, self._train)
        draw.shuffle(batches)
        return batches

    # ---- checkpoints

    def _save(self, now: _Progress) -> None:
        state = {
            "progress": vars(now), "values": self._adapter.state(), "best": self._best,
            "optimizer": self._optimizer.state_dict(), "losses": self._losses,
        }  # fmt: skip
        draft = self._checkpoint.with_suffix(".new")
        torch.save(state, draft)
        draft.replace(self._checkpoint)

    def _resumed(self) -> _Progress | None:
        """Where an interrupted training of the same was; None where there is none."""
        if not self._checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
            now = _Progress(**state["progress"])
            if now.key != self._key:
                return None
            self._adapter.restore(state["values"])
            self._optimizer.load_state_dict(state["optimizer"])
        except Exception:  # a damaged checkpoint: begin anew
            return None
        self._best, self._losses = state["best"], state["losses"]
        return now


def _batched(order: Sequence[int], pairs: Sequence[TokenPair]) -> list[list[int]]:
    """Numbers of pairs in batches of at most `BATCH_TOKENS` tokens, padding included."""
    batches: list[list[int]] = []
    widest = 0
    for i in order:
        width = len(pairs[i].tokens)
        if batches and max(widest, width) * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(i)
            widest = max(widest, width)
        else:
            batches.append([i])
            widest = width
    return batches
