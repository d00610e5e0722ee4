"""Which models are loaded, and who may use them now.

A model is loaded when it is first asked for and leased for as long as a request runs. The least
recently used idle one is unloaded to make place. A worker that dies is started again at once; after
deaths with no answer between them ever later, and then not at all for a while (`engine.breaker`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from edgeagent import errors
from edgeagent.engine.breaker import Breaker
from edgeagent.engine.client import EngineClient
from edgeagent.types import EngineConfig

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0


@dataclass(frozen=True)
class PoolLimits:
    """How many models, and how patient to be with their workers."""

    max_resident: int
    load_timeout_s: float
    hang_timeout_s: float
    breaker_deaths: int
    breaker_window_s: float


@dataclass(eq=False)
class Resident:
    """One model's place in the pool; it outlives the workers that come and go in it."""

    model_id: str
    breaker: Breaker
    client: EngineClient | None = None
    starting: asyncio.Task[EngineClient] | None = None
    n_leases: int = 0
    last_used_s: float = field(default_factory=time.monotonic)
    n_deaths: int = 0
    failure: str | None = None  # why the last start failed

    @property
    def state(self) -> Literal["loaded", "loading", "unloaded"]:
        if self.client is not None and self.client.is_alive:
            return "loaded"
        return "loading" if self.starting is not None else "unloaded"


class Pool:
    """All engine workers of the daemon. Event loop's thread only; `close()` may be called twice.

    `configure` gives the engine configuration of a model id, or raises ModelNotFound.
    """

    def __init__(
        self,
        limits: PoolLimits,
        configure: Callable[[str], EngineConfig],
        *,
        log_level: str = "info",
    ) -> None:
        self._limits = limits
        self._configure = configure
        self._log_level = log_level
        self._residents: dict[str, Resident] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._is_closing = False

    async def open(self) -> None:
        """Start watching for workers that hang."""
        self._watcher = asyncio.create_task(self._watch(), name="pool-watch")

    def resident(self, model_id: str) -> Resident | None:
        return self._residents.get(model_id)

    def residents(self) -> list[Resident]:
        return list(self._residents.values())

    @asynccontextmanager
    async def lease(self, model_id: str) -> AsyncIterator[EngineClient]:
        """A loaded engine that is not unloaded while the lease lasts.

        Raises: ModelNotFound, ModelUnusable, EngineStarting, EngineDied, EngineBroken, Unavailable.
        """
        resident = await self._place(model_id)
        resident.n_leases += 1
        try:
            yield await self._client(resident)
        finally:
            resident.n_leases -= 1
            resident.last_used_s = time.monotonic()
            await self._notify()

    def record_answer(self, model_id: str) -> None:
        """A request was answered to its end: earlier deaths are forgiven."""
        resident = self._residents.get(model_id)
        if resident is not None:
            resident.breaker.record_answer()

    async def unload(self, model_id: str) -> None:
        """End a model's worker, whatever it is doing; all its memory comes back."""
        resident = self._residents.pop(model_id, None)
        if resident is not None:
            await self._end(resident)
            await self._notify()

    async def close(self) -> None:
        self._is_closing = True
        if self._watcher is not None:
            self._watcher.cancel()
        for model_id in list(self._residents):
            await self.unload(model_id)
        for task in list(self._tasks):
            task.cancel()

    # --- places

    async def _place(self, model_id: str) -> Resident:
        """The model's place; where all are taken, the least recently used idle model leaves one."""
        self._configure(model_id)  # an unknown model must not push out a known one
        deadline = time.monotonic() + self._limits.load_timeout_s
        while True:
            resident = self._residents.get(model_id)
            if resident is not None:
                return resident
            if len(self._residents) < self._limits.max_resident:
                breaker = Breaker(self._limits.breaker_deaths, self._limits.breaker_window_s)
                resident = self._residents[model_id] = Resident(model_id, breaker)
                return resident
            victim = pick_eviction(self.residents())
            if victim is not None:
                logger.info("evicted model=%s for=%s reason=max_resident_models", victim.model_id, model_id)
                await self.unload(victim.model_id)
                continue
            await self._wait_for_change(model_id, deadline)

    async def _wait_for_change(self, model_id: str, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._changed:
                await self._changed.wait()
        except TimeoutError:
            names = ", ".join(self._residents)
            raise errors.Unavailable(
                f"Model {model_id} found no place: {len(self._residents)} models ({names}) are in use and "
                f"max_resident_models is {self._limits.max_resident}: try again later or raise it.",
                retry_after_s=10.0,
            ) from None

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- workers

    async def _client(self, resident: Resident) -> EngineClient:
        if resident.client is not None and resident.client.is_alive:
            return resident.client
        task = self._start(resident)
        return await asyncio.shield(task)

    def _start(self, resident: Resident) -> asyncio.Task[EngineClient]:
        """The one running attempt to start this model's worker. Raises: EngineBroken."""
        if resident.starting is not None:
            return resident.starting
        broken = self.broken(resident)
        if broken is not None:
            raise broken
        delay_s = resident.breaker.delay_s(time.monotonic())
        task = asyncio.create_task(
            self._bring_up(resident, delay_s), name=f"start-{resident.model_id}"
        )
        resident.starting = task
        self._keep(task)
        return task

    def broken(self, resident: Resident) -> errors.EngineBroken | None:
        """Why a request would not even start this model's worker now; None when it would."""
        closes_in_s = resident.breaker.closes_in_s(time.monotonic())
        if closes_in_s is None:
            return None
        return errors.EngineBroken(
            f"The engine of {resident.model_id} died {self._limits.breaker_deaths} times in "
            f"{self._limits.breaker_window_s:g} s without finishing an answer and is left alone for now: "
            f"try again in {closes_in_s:.0f} s, or check it with `edgeagent models verify {resident.model_id}`.",
            retry_after_s=closes_in_s,
        )

    async def _bring_up(self, resident: Resident, delay_s: float) -> EngineClient:
        try:
            await asyncio.sleep(delay_s)
            config = self._configure(resident.model_id)
            client = await EngineClient.start(
                config,
                timeout_s=self._limits.load_timeout_s,
                on_death=lambda client, status: self._on_death(resident, client, status),
                log_level=self._log_level,
            )
        except errors.EdgeAgentError as exc:
            resident.failure = exc.message
            raise
        finally:
            resident.starting = None
        resident.client = client
        resident.failure = None
        logger.info(
            "loaded model=%s pid=%s load_ms=%.0f", resident.model_id, client.pid, client.facts.load_ms
        )
        return client

    def _on_death(self, resident: Resident, client: EngineClient, status: int | None) -> None:
        """Count a death nobody asked for, and bring the worker up again."""
        if self._is_closing or self._residents.get(resident.model_id) is not resident:
            return
        resident.n_deaths += 1
        resident.breaker.record_death(time.monotonic())
        if resident.client is client:
            resident.client = None
        if resident.starting is None and client.was_loaded:
            try:
                self._start(resident)
            except errors.EngineBroken as exc:
                logger.error("engine_broken model=%s %s", resident.model_id, exc.message)

    async def _end(self, resident: Resident) -> None:
        if resident.starting is not None:
            resident.starting.cancel()
        if resident.client is not None:
            await resident.client.close()

    def _keep(self, task: asyncio.Task[EngineClient]) -> None:
        """Hold on to a task until it is done, and take note of an error nobody awaits."""
        self._tasks.add(task)  # type: ignore[arg-type]

        def done(task: asyncio.Task[EngineClient]) -> None:
            self._tasks.discard(task)  # type: ignore[arg-type]
            if not task.cancelled() and (exc := task.exception()) is not None:
                logger.error("load_failed %s", exc)

        task.add_done_callback(done)

    async def _watch(self) -> None:
        """End workers whose engine thread has been silent for too long; their death does the rest."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now = time.monotonic()
            slept, last = now - last, now
            if slept > 5 * WATCH_INTERVAL_S:
                continue  # it was this process that stood still: heartbeats wait in the socket
            for resident in self.residents():
                client = resident.client
                if client is not None and client.is_alive:
                    silent_s = now - client.last_beat_s
                    if silent_s > self._limits.hang_timeout_s:
                        client.kill(f"silent for {silent_s:.0f} s")


def pick_eviction(residents: list[Resident]) -> Resident | None:
    """The least recently used model that nobody leases; None when all are in use. Pure: no log."""
    idle = [resident for resident in residents if resident.n_leases == 0 and resident.starting is None]
    return min(idle, key=lambda resident: resident.last_used_s, default=None)
