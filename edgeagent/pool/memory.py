"""Decides which models stay in memory: one budget for all workers, checked before a model is loaded.

Pure functions over plain numbers; the pool carries the decision out.

    1. The model needs more than the budget less the pinned models: never.
    2. It fits beside the loaded models: load it.
    3. It fits when idle models are evicted, least recently used first: evict them and load it.
    4. It would fit when busy models become idle: wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker.client import WorkerClient


@dataclass(frozen=True)
class Placement:
    """How to load a model: the kind of worker, its configuration, the memory that it needs, and how that
    memory was calculated, in words. One that does not `displace` is only loaded into free memory."""

    kind: type[WorkerClient]
    config: WorkerConfig
    need_bytes: int
    arithmetic: str
    displaces: bool = True


@dataclass(frozen=True)
class LoadedModel:
    """One loaded model, with the memory that its worker uses."""

    model_id: str
    n_bytes: int
    is_idle: bool
    is_pinned: bool
    last_used_s: float


@dataclass(frozen=True)
class LoadDecision:
    """`verdict` is "load" (after evicting `evict`, maybe no model), "wait" (for `blockers` to become idle) or
    "never" (not even when all unpinned models are evicted)."""

    verdict: str
    evict: list[str] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)


# A worker that has outgrown what its model needs by this much is started anew once it is idle. Needs are
# estimated within 3% (scripts/bench memory): the rest has leaked, or lies in fragments of the heap.
GROWTH_SHARE, GROWTH_BYTES = 0.5, 64 << 20


def has_outgrown(n_bytes: int, need_bytes: int) -> bool:
    """Whether a worker holds so much more than was expected that it should be started anew. Pure."""
    return n_bytes > need_bytes * (1 + GROWTH_SHARE) + GROWTH_BYTES


def decide(need_bytes: int, budget_bytes: int | None, held: Sequence[LoadedModel]) -> LoadDecision:
    """Decide whether a model that needs `need_bytes` may be loaded. Without a budget every model may."""
    if budget_bytes is None:
        return LoadDecision("load")
    pinned = sum(model.n_bytes for model in held if model.is_pinned)
    if need_bytes > budget_bytes - pinned:
        return LoadDecision("never", blockers=[model.model_id for model in held if model.is_pinned])
    free = budget_bytes - sum(model.n_bytes for model in held)
    evict: list[str] = []
    for model in sorted(held, key=lambda model: model.last_used_s):
        if free >= need_bytes:
            break
        if model.is_idle and not model.is_pinned:
            evict.append(model.model_id)
            free += model.n_bytes
    if free >= need_bytes:
        return LoadDecision("load", evict=evict)
    busy = [model.model_id for model in held if not model.is_idle and not model.is_pinned]
    return LoadDecision("wait", blockers=busy)


def in_words(need: Placement, budget_bytes: int, held: Sequence[LoadedModel]) -> str:
    """The numbers of a refusal in words: what is needed, what each loaded model uses, and the budget."""
    loaded = ", ".join(f"{model.model_id} {_mb(model.n_bytes)}" for model in held) or "nothing"
    return (
        f"Model {need.config.model_id} needs {_mb(need.need_bytes)} ({need.arithmetic}); loaded are "
        f"{loaded}; the budget is {_mb(budget_bytes)}"
    )


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
