"""Leases of a model with a LoRA adapter, over a pool that only counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from edgeagent.routing.decision import Decision
from edgeagent.serving.engines import Engines
from edgeagent.types.engine_config import AdapterFile


class CountingPool:
    """Its model is loaded without the adapter, and with it after it was unloaded."""

    def __init__(self) -> None:
        self.n_leases = 0
        self.adapters: tuple[AdapterFile, ...] = ()
        self.leases_at_unload: list[int] = []

    @asynccontextmanager
    async def lease(self, model_id: str, kind: type) -> AsyncIterator[Any]:
        self.n_leases += 1
        try:
            yield SimpleNamespace(config=SimpleNamespace(adapters=self.adapters))
        finally:
            self.n_leases -= 1

    def resident(self, model_id: str) -> Any:
        return SimpleNamespace(n_leases=self.n_leases)

    async def unload(self, model_id: str, cause: str, details: str) -> None:
        self.leases_at_unload.append(self.n_leases)
        self.adapters = (AdapterFile("tone", "tone.gguf"),)


async def test_a_model_is_loaded_again_for_an_adapter_before_others_can_lease_it() -> None:
    pool: Any = CountingPool()
    decision = Decision("m", "named", adapter="tone", adapter_path="tone.gguf")
    origin: Any = None
    for _ in range(2):
        async with Engines(pool).lease_for(origin, decision) as client:
            assert client.config.adapters and pool.n_leases == 1  # type: ignore[union-attr]
    assert pool.leases_at_unload == [1]
