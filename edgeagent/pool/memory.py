"""Who stays in memory: one budget for every worker of the daemon, decided before anything is loaded.

Pure functions over plain numbers, which must not log: the pool carries the decision out.

    1. More than the budget without what is pinned: never.
    2. It fits beside what is loaded: load it.
    3. It fits once idle models have gone, the least recently used first: evict those.
    4. It would fit once busy models are idle: wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeagent.types.worker import WorkerConfig
from edgeagent.worker.client import WorkerClient


@dataclass(frozen=True)
class Placement:
    """How a model would be loaded: by which kind of worker, with which configuration, in how many bytes,
    and the arithmetic of those in words."""

    kind: type[WorkerClient]
    config: WorkerConfig
    need_bytes: int
    arithmetic: str


@dataclass(frozen=True)
class LoadedModel:
    """What one loaded model holds: measured where its worker runs, estimated while it loads."""

    model_id: str
    n_bytes: int
    is_idle: bool
    is_pinned: bool
    last_used_s: float


@dataclass(frozen=True)
class LoadDecision:
    """`verdict` load: after evicting `evict` (maybe nobody). wait: for `blockers`. never: alone it
    has no place."""

    verdict: str
    evict: list[str] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)


def decide(need_bytes: int, budget_bytes: int | None, held: Sequence[LoadedModel]) -> LoadDecision:
    """What must happen before `need_bytes` more may be loaded. No budget: everything fits."""
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
    """The arithmetic of a refusal: what is needed, what is held by whom, what the budget is."""
    loaded = ", ".join(f"{model.model_id} {_mb(model.n_bytes)}" for model in held) or "nothing"
    return (
        f"Model {need.config.model_id} needs {_mb(need.need_bytes)} ({need.arithmetic}); loaded are "
        f"{loaded}; the budget is {_mb(budget_bytes)}"
    )


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
