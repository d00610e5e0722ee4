"""Interruptible training: schedule, clipping, checkpoints, early stopping, progress.

Random choices in an epoch depend only on the seed and the epoch, and a checkpoint has the state of
everything else, so a resumed training ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from edgeagent.errors import ForgeFailed
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster

LINE_EVERY_S = 30.0


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. Learning rates rise during `warmup` of all steps and fall along a cosine to a tenth.

    `patience` ends the training after that many evaluations without a better score. `precision` auto
    multiplies in bf16 if this processor is faster at it. `average` evaluates and keeps a running mean of
    the weights instead of the last ones: it is the share of the mean that stays at each step, smaller at
    first.
    """

    epochs: int
    learning_rate: float
    batch_tokens: int = 2048
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 1
    evaluate_every: int = 1
    patience: int | None = None
    precision: Literal["auto", "f32", "bf16"] = "auto"
    average: float = 0.0
    group_rates: dict[str, float] = field(default_factory=dict)


class TrainingTask(Protocol):
    """What is trained: batches of an epoch, the loss of each, and the score of the model."""

    def batches(self, epoch: int) -> list[Any]:
        """The batches of one epoch, in order; always the same for the same epoch."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        """A scalar to minimize, and how many tokens were read."""
        ...

    def score(self) -> dict[str, float]:
        """Metrics on the validation items; `score` is the one that counts."""
        ...


class Trainer:
    """Trains `model` on `task`, keeping a checkpoint and a log in `folder`. The lines of the log are JSON."""

    def __init__(
        self,
        model: nn.Module,
        task: TrainingTask,
        plan: TrainingPlan,
        folder: Path,
        *,
        is_quiet: bool = False,
    ) -> None:
        self.model, self.task, self.plan, self.folder = model, task, plan, folder
        self._is_quiet = is_quiet
        folder.mkdir(parents=True, exist_ok=True)
        self.n_steps = plan.epochs * len(task.batches(0))
        self.optimizer = torch.optim.AdamW(
            _groups(model, plan), lr=plan.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True
        )
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._mean = [p.detach().clone() for p in self._weights()] if plan.average else []
        self._epoch = self._batch = self._step = 0
        self._best: float | None = None
        self._n_worse = 0
        self._figures: dict[str, float] = {}
        self._trained_s = 0.0
        self._is_bf16 = plan.precision == "bf16" or (plan.precision == "auto" and bf16_is_faster())

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The weights with the best score so far."""
        return self.folder / "best.pt"

    def resume(self) -> bool:
        """Continue from the checkpoint. False: there is none.

        Raises: ForgeFailed for a checkpoint of another plan.
        """
        if not self.checkpoint.exists():
            return False
        try:
            state = torch.load(self.checkpoint, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as exc:
            raise ForgeFailed(
                f"{self.checkpoint} cannot be read ({exc}): delete it to start again."
            ) from exc
        if state["n_steps"] != self.n_steps or state["seed"] != self.plan.seed:
            raise ForgeFailed(
                f"{self.checkpoint} belongs to a training of {state['n_steps']} steps with seed "
                f"{state['seed']}, but this one has {self.n_steps} and {self.plan.seed}: delete it, or use "
                "the recipe that it was started with."
            )
        self.model.load_state_dict(state["model"])
        self._mean = state.get("mean", self._mean)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self._epoch, self._batch, self._step = state["epoch"], state["batch"], state["step"]
        self._best, self._n_worse = state["best"], state["n_worse"]
        self._figures, self._trained_s = state["figures"], state["trained_s"]
        return True

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "mean": self._mean,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "epoch": self._epoch,
            "batch": self._batch,
            "step": self._step,
            "best": self._best,
            "n_worse": self._n_worse,
            "figures": self._figures,
            "trained_s": self._trained_s,
            "n_steps": self.n_steps,
            "seed": self.plan.seed,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def run(
        self, *, save_every_s: float = 120.0, until: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Train to the end of the plan, or until `until()` is true, and return the metrics of the best
        weights.

        A checkpoint is written every `save_every_s` and at each evaluation.
        """
        if self._step == 0:
            torch.manual_seed(self.plan.seed)
        with self._progress() as tell:
            saved = time.monotonic()
            while self._epoch < self.plan.epochs:
                batches = self.task.batches(self._epoch)
                self.model.train()
                while self._batch < len(batches):
                    loss, n_tokens = self._train_on(batches[self._batch])
                    self._batch += 1
                    tell(loss, n_tokens)
                    if time.monotonic() - saved > save_every_s or until():
                        self.save()
                        saved = time.monotonic()
                        if until():
                            return self._figures
                self._epoch, self._batch = self._epoch + 1, 0
                if self._epoch % self.plan.evaluate_every == 0 or self._epoch == self.plan.epochs:
                    self._evaluate()
                    self.save()
                    if self.plan.patience is not None and self._n_worse >= self.plan.patience:
                        break
        self.model.load_state_dict(torch.load(self.best, weights_only=True))
        return self._figures

    def _train_on(self, batch: Any) -> tuple[float, int]:
        started = time.monotonic()
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * rate_at(self._step, self.n_steps, self.plan.warmup)
        with self._autocast():
            loss, n_tokens = self.task.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizer.step()
        self._step += 1
        if self._mean:
            self._take_mean()
        self._trained_s += time.monotonic() - started
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ForgeFailed(
                f"The loss became {value} at step {self._step}: lower learning_rate in the recipe."
            )
        return value, n_tokens

    def _weights(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @torch.no_grad()
    def _take_mean(self) -> None:
        """Polyak averaging with decay, as in Tarvainen and Valpola 2017, arXiv:1703.01780: the first steps
        are forgotten faster."""
        stays = min(self.plan.average, self._step / (self._step + 10))
        torch._foreach_lerp_(self._mean, self._weights(), 1 - stays)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the mean of its weights, within the block."""
        last = [p.detach().clone() for p in self._weights()] if self._mean else []
        with torch.no_grad():
            for weight, mean in zip(self._weights(), self._mean, strict=False):
                weight.copy_(mean)
            yield
            for weight, kept in zip(self._weights(), last, strict=False):
                weight.copy_(kept)

    def _evaluate(self) -> None:
        self.model.eval()
        with self._averaged():
            with self._autocast():
                figures = self.task.score()
            if self._best is None or figures["score"] > self._best:
                self._best, self._n_worse, self._figures = figures["score"], 0, figures
                torch.save(self.model.state_dict(), self.best)
            else:
                self._n_worse += 1
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            done = {"epoch": self._epoch, "step": self._step, "trained_s": round(self._trained_s)}
            log.write(json.dumps(done | figures) + "\n")

    def _autocast(self) -> Any:
        return autocast(self._is_bf16)

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Callable[[float, int], None]]:
        """A progress bar with recent loss and tokens per second."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"), TimeRemainingColumn(),
        )  # fmt: skip
        recent_loss, recent_rate, last = 0.0, 0.0, time.monotonic()
        said_at = last
        with Progress(*columns, disable=self._is_quiet, refresh_per_second=2) as progress:
            is_seen = progress.console.is_terminal
            bar = progress.add_task(
                self.folder.name, total=self.n_steps, completed=self._step, said=""
            )

            def tell(loss: float, n_tokens: int) -> None:
                nonlocal recent_loss, recent_rate, last, said_at
                now = time.monotonic()
                rate, last = n_tokens / max(1e-6, now - last), now
                weight = 0.05 if recent_rate else 1.0
                recent_loss += weight * (loss - recent_loss)
                recent_rate += weight * (rate - recent_rate)
                said = f"loss {recent_loss:.3f}  {recent_rate:,.0f} tokens/s"
                progress.update(bar, advance=1, said=said)
                # If the output goes to a file, print lines instead of a bar.
                if not is_seen and not self._is_quiet and now - said_at > LINE_EVERY_S:
                    said_at = now
                    line = f"{self.folder.name}: step {self._step} of {self.n_steps}, {said}"
                    print(line, file=sys.stderr, flush=True)

            yield tell


def rate_at(step: int, n_steps: int, warmup: float) -> float:
    """The learning rate at a step as a share of the highest: linear rise, cosine fall to a tenth.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    n_warm = max(1, round(warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    progress = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _groups(model: nn.Module, plan: TrainingPlan) -> list[dict[str, Any]]:
    """Weight decay for matrices, not for vectors. `group_rates`: a rate for parameters by name prefix."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = next(
            (r for prefix, r in plan.group_rates.items() if name.startswith(prefix)),
            plan.learning_rate,
        )
        decay = plan.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()
    ]
