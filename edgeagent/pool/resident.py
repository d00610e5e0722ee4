"""One model's place in the pool; it outlives the workers that come and go in it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

from edgeagent.pool.memory import LoadedModel, Placement
from edgeagent.worker.breaker import Breaker
from edgeagent.worker.client import WorkerClient


@dataclass(eq=False)
class Resident:
    """Touched by the pool only; others may read."""

    model_id: str
    breaker: Breaker
    client: WorkerClient | None = None
    starting: asyncio.Task[WorkerClient] | None = None
    placement: Placement | None = None
    n_leases: int = 0
    last_used_s: float = field(default_factory=time.monotonic)
    n_deaths: int = 0
    failure: str | None = None  # why the last start failed

    @property
    def state(self) -> Literal["loaded", "loading", "unloaded"]:
        if self.client is not None and self.client.is_alive:
            return "loaded"
        return "loading" if self.starting is not None else "unloaded"

    @property
    def n_bytes(self) -> int:
        """Memory it holds: what its worker was last measured to use, until then the estimate."""
        if self.state == "unloaded" or self.placement is None:
            return 0
        measured = self.client.health.rss_bytes if self.client is not None else 0
        return measured or self.placement.need_bytes

    def held(self, *, is_pinned: bool) -> LoadedModel:
        is_idle = self.n_leases == 0 and self.starting is None
        return LoadedModel(self.model_id, self.n_bytes, is_idle, is_pinned, self.last_used_s)
