"""The state of one model in the pool, across restarts of its worker."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.errors import EngineBroken
from edgeagent.pool.memory import LoadedModel, Placement, has_outgrown
from edgeagent.settings.pool import PoolSettings
from edgeagent.settings.worker import WorkerSettings
from edgeagent.types.engine_config import EngineHealth
from edgeagent.types.histogram import Histogram
from edgeagent.worker.breaker import Breaker
from edgeagent.worker.client import WorkerClient

# Why a worker is ended: another model needs its memory, nobody used it, it has grown, a client said so, the
# daemon stops, another file was installed in its place.
UnloadCause = Literal["memory", "idle", "growth", "request", "shutdown", "replaced"]
GROWTH_IDLE_S = 30.0  # before a worker that has grown is started anew


@dataclass(eq=False)
class Resident:
    """One model. Only the pool changes it; others may read it."""

    model_id: str
    breaker: Breaker
    client: WorkerClient | None = None
    starting: asyncio.Task[WorkerClient] | None = None
    placement: Placement | None = None
    n_leases: int = 0
    is_outdated: bool = False
    give_ways: list[asyncio.Event] = field(default_factory=list)  # of the leases that have one
    last_used_s: float = field(default_factory=time.monotonic)
    ended_s: float = -math.inf  # when the last worker ended
    n_deaths: int = 0
    failure: str | None = None  # why the last start failed
    n_loads: int = 0
    unloads: Counter[UnloadCause] = field(default_factory=Counter)
    past_gaps: Histogram = field(default_factory=Histogram)  # of workers that have ended
    n_past_preempted: int = 0
    n_past_drafted: int = 0
    n_past_accepted: int = 0

    def notice(self, found: object) -> None:
        """Compare the file that is loaded with that of the model as it is installed now."""
        loaded = self.client.config.path if self.client is not None else None
        if loaded is None or not isinstance(found, InstalledModel):
            self.is_outdated = False
        else:  # a speech model is loaded by its folder
            self.is_outdated = loaded not in (str(found.path), str(found.path.parent))

    def let_go(self) -> WorkerClient | None:
        """The client of a worker that ends, which is no longer used. What it has counted is kept."""
        client, self.client = self.client, None
        self.ended_s = time.monotonic()
        if client is not None and isinstance(client.health, EngineHealth):
            self.past_gaps = self.past_gaps.plus(client.health.token_gaps)
            self.n_past_preempted += client.health.n_preempted
            self.n_past_drafted += client.health.n_drafted
            self.n_past_accepted += client.health.n_accepted
        return client

    @property
    def state(self) -> Literal["loaded", "loading", "unloaded"]:
        if self.client is not None and self.client.is_alive:
            return "loaded"
        return "loading" if self.starting is not None else "unloaded"

    @property
    def n_bytes(self) -> int:
        """Memory that the worker uses, or may use any time, by its last heartbeat; before the first one, the
        estimate."""
        if self.state == "unloaded" or self.placement is None:
            return 0
        if self.client is None or not (health := self.client.health).rss_bytes:
            return self.placement.need_bytes
        return health.rss_bytes + health.reserved_bytes

    def end_reason(
        self, now_s: float, settings: PoolSettings, *, stays: bool
    ) -> tuple[UnloadCause, str] | None:
        """Why the worker should end now, and the numbers; None: it goes on.

        A model that `stays` is not ended for being idle. One that has grown is ended only if it was used, so
        that a wrong estimate does not start it again and again."""
        idle_s = now_s - self.last_used_s
        if self.n_leases or self.placement is None:
            return None
        if settings.idle_unload_s and not stays and idle_s > settings.idle_unload_s:
            return "idle", f"idle for {idle_s:.0f} s"
        # What is set aside counts as needed, and not as grown: it is an estimate.
        n_bytes = self.client.health.rss_bytes if self.client is not None else 0
        need_bytes = self.placement.need_bytes
        is_used = self.last_used_s > self.ended_s
        if is_used and idle_s > GROWTH_IDLE_S and has_outgrown(n_bytes, need_bytes):
            return "growth", f"{n_bytes >> 20} MiB instead of {need_bytes >> 20}"
        return None

    def broken(self, settings: WorkerSettings, now_s: float) -> EngineBroken | None:
        """The error for requests while the breaker is open; None while it is closed."""
        closes_in_s = self.breaker.closes_in_s(now_s)
        if closes_in_s is None:
            return None
        return EngineBroken(
            f"The engine of {self.model_id} died {settings.breaker_deaths} times in "
            f"{settings.breaker_window_s:g} s without finishing an answer and is left alone for now: try "
            f"again in {closes_in_s:.0f} s, or check it with `edgeagent models verify {self.model_id}`.",
            retry_after_s=closes_in_s,
        )

    def ask_to_give_way(self) -> None:
        """Ask the leases to end, where all of them would, because another model needs the memory."""
        if self.n_leases == len(self.give_ways):
            for event in self.give_ways:
                event.set()

    def held(self, *, is_pinned: bool) -> LoadedModel:
        is_idle = self.n_leases == 0 and self.starting is None
        return LoadedModel(self.model_id, self.n_bytes, is_idle, is_pinned, self.last_used_s)
