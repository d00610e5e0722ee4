"""The pool of workers: leases, starts on demand, evictions, restarts.

A model is loaded with its first request and leased for as long as a request runs. Before a load,
`memory.decide` chooses which models are unloaded for it. One model loads at a time; a model that waits for
memory in use holds no other up. A worker that dies is started again at once, after repeated deaths without an
answer with growing delays, and then not at all for a while (`worker.breaker`). Cores are divided among the
models that have leases (`cores.share_cores`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from edgeagent import errors
from edgeagent.pool.cores import CoreShares
from edgeagent.pool.memory import LoadDecision, LoadedModel, Placement, decide, in_words
from edgeagent.pool.resident_model import Resident, UnloadCause
from edgeagent.settings.pool import PoolSettings
from edgeagent.settings.worker import WorkerSettings
from edgeagent.types.worker_config import WorkerConfig
from edgeagent.worker.breaker import Breaker
from edgeagent.worker.client import WorkerClient
from edgeagent.worker.heartbeat import IDLE_HEARTBEAT_S
from edgeagent.worker.process import WorkerProcess

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0
IDLE_WATCH_INTERVAL_S = 2.0  # while no model is leased
WATCH_GRACE_S = 15.0  # a busy device wakes late; a worker that is killed takes a moment to end

Client = TypeVar("Client", bound=WorkerClient)


class Pool:
    """All workers of the daemon, of whatever kind. Event loop's thread only; `close()` may be called twice.

    `check` raises ModelNotFound for an unknown model; where it returns the installed one, a worker of another
    file of that model is replaced once it is idle. `place` returns how a model would be loaded and what it
    needs, or raises why it cannot be. `preloaded` returns the process that loads this already, if there is
    one. Those in `loaded` are told of each load. Models in `stays` are never unloaded for idleness, pinned
    ones not for memory either. `settings`, `log_level` and `at_work` (called at each lease) may be replaced.
    """

    def __init__(
        self,
        settings: PoolSettings,
        worker: WorkerSettings,
        *,
        n_cores: int,
        check: Callable[[str], object],
        place: Callable[[str], Awaitable[Placement]],
        log_level: str = "info",
        preloaded: Callable[[WorkerConfig], WorkerProcess | None] | None = None,
        loaded: Sequence[Callable[[str, WorkerClient], None]] = (),
        stays: frozenset[str] = frozenset(),
    ) -> None:
        self._loaded = loaded
        self.settings = settings
        self._worker = worker
        self.cores = CoreShares(n_cores, self.residents)
        self._stays = stays
        self._check = check
        self._place = place
        self.log_level = log_level
        self._preloaded = preloaded
        self.at_work: Callable[[], None] = lambda: None
        self._residents: dict[str, Resident] = {}
        self._tasks: set[asyncio.Task[WorkerClient]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._is_closing = False
        self._watched_s = time.monotonic()

    async def open(self) -> None:
        """Start watching for workers that hang and models that are idle."""
        self._watcher = asyncio.create_task(self._watch(), name="pool-watch")

    def resident(self, model_id: str) -> Resident | None:
        return self._residents.get(model_id)

    def residents(self) -> list[Resident]:
        return list(self._residents.values())

    @property
    def is_busy(self) -> bool:
        """Whether any model is leased or being loaded."""
        return any(r.n_leases or r.starting is not None for r in self._residents.values())

    @property
    def n_bytes(self) -> int:
        """Memory that all workers hold together."""
        return sum(resident.n_bytes for resident in self._residents.values())

    @asynccontextmanager
    async def lease(
        self, model_id: str, kind: type[Client], *, give_way: asyncio.Event | None = None
    ) -> AsyncIterator[Client]:
        """A loaded worker of this kind that is not unloaded while the lease lasts.

        `give_way` is set once another model waits for the memory and all leases of this one have such an
        event: the lease should end soon then.

        Raises: ModelNotFound, ModelUnusable, InsufficientMemory, EngineStarting, EngineDied,
        EngineBroken, Unavailable; InvalidParameter for a model that another kind of worker runs.
        """
        resident = self._resident(model_id)
        resident.n_leases += 1
        if give_way is not None:
            resident.give_ways.append(give_way)
        self.at_work()
        try:
            client = await self._client(resident)
            if not isinstance(client, kind):
                raise errors.InvalidParameter(
                    f"Model {model_id} does another kind of work: GET /v1/models lists what each model does.",
                    param="model",
                )
            self.cores.divide()
            yield client
        finally:
            resident.n_leases -= 1
            if give_way is not None:
                resident.give_ways.remove(give_way)
            resident.last_used_s = time.monotonic()
            self.cores.divide()
            await self._notify()

    def record_answer(self, model_id: str) -> None:
        """Record that a request was answered completely, which resets the count of deaths."""
        resident = self._residents.get(model_id)
        if resident is not None:
            resident.breaker.record_answer()

    async def load(self, model_id: str) -> Resident:
        """Load a model without a request. Raises what `lease` raises."""
        async with self.lease(model_id, WorkerClient):  # type: ignore[type-abstract]
            return self._residents[model_id]

    async def unload(self, model_id: str, cause: UnloadCause, details: str = "") -> bool:
        """End a model's worker, whatever it is doing, which returns all its memory. False: not loaded."""
        resident = self._residents.get(model_id)
        if resident is None or resident.state == "unloaded":
            return False
        n_bytes, reason = resident.n_bytes, details or cause
        logger.info("unloaded model=%s n_bytes=%s reason=%s", model_id, n_bytes, reason)
        resident.unloads[cause] += 1
        client = resident.let_go()
        if resident.starting is not None:
            resident.starting.cancel()
        if client is not None:
            await client.close()
        await self._notify()
        return True

    def forget_prefixes(self, scope: str | None = None) -> None:
        """Drop what loaded models have cached of the ended requests of one scope, or of all (None)."""
        for resident in self._residents.values():
            if resident.client is not None:
                resident.client.forget_prefixes(scope)

    async def close(self) -> None:
        self._is_closing = True
        if self._watcher is not None:
            self._watcher.cancel()
        for model_id in list(self._residents):
            await self.unload(model_id, "shutdown")
        for task in list(self._tasks):
            task.cancel()

    # --- starting

    def _resident(self, model_id: str) -> Resident:
        found = self._check(model_id)  # raises for an unknown model
        if model_id not in self._residents:
            breaker = Breaker(self._worker.breaker_deaths, self._worker.breaker_window_s)
            self._residents[model_id] = Resident(model_id, breaker)
        resident = self._residents[model_id]
        resident.notice(found)
        return resident

    async def _client(self, resident: Resident) -> WorkerClient:
        if resident.is_outdated and resident.n_leases == 1:
            await self.unload(resident.model_id, "replaced")
        if resident.client is not None and resident.client.is_alive:
            return resident.client
        start = self._start(resident)
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not start.cancelled() or (task is not None and task.cancelling()):
                raise
            raise errors.Unavailable(
                f"Model {resident.model_id} was unloaded while it was being loaded: send the request again.",
                retry_after_s=1.0,
            ) from None

    def _start(self, resident: Resident) -> asyncio.Task[WorkerClient]:
        """Start this model's worker, or return the start that is under way. Raises: EngineBroken."""
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
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._started(resident, task))
        return task

    def broken(self, resident: Resident) -> errors.EngineBroken | None:
        """The error that a request for this model gets while the breaker is open; None while it is closed."""
        return resident.broken(self._worker, time.monotonic())

    def _started(self, resident: Resident, task: asyncio.Task[WorkerClient]) -> None:
        self._tasks.discard(task)
        if resident.starting is task:  # cancelled before it began
            resident.starting = None
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("load_failed %s", exc)

    async def _bring_up(self, resident: Resident, delay_s: float) -> WorkerClient:
        try:
            await asyncio.sleep(delay_s)
            deadline_s = time.monotonic() + self._worker.load_timeout_s
            while (client := await self._load(resident)) is None:
                await self._wait_for_room(resident.placement, deadline_s)
        except errors.EdgeAgentError as exc:
            resident.failure = exc.message
            raise
        finally:
            resident.starting = None
        resident.client = client
        resident.n_loads += 1
        resident.failure = None
        logger.info(
            "loaded model=%s pid=%s load_ms=%.0f n_bytes=%s need_bytes=%s", resident.model_id, client.pid,
            client.facts.load_ms, resident.n_bytes, resident.placement and resident.placement.need_bytes,
        )  # fmt: skip
        for tell in self._loaded:
            tell(resident.model_id, client)
        return client

    async def _load(self, resident: Resident) -> WorkerClient | None:
        """Load a model into what memory is free or can be freed; None while busy models hold it, and
        others may load meanwhile."""
        async with self._turn_to_load(resident.model_id):
            resident.placement = await self._place(resident.model_id)
            if not await self._make_room(resident.placement):
                return None
            return await resident.placement.kind.start(
                resident.placement.config,
                timeout_s=self._worker.load_timeout_s,
                on_death=lambda client, status: self._on_death(resident, client),
                log_level=self.log_level,
                process=await self._take_preloaded(resident.placement.config),
            )

    async def _take_preloaded(self, config: WorkerConfig) -> WorkerProcess | None:
        """The process that was launched before there was a pool; for the first model that is loaded only."""
        take, self._preloaded = self._preloaded, None
        return await asyncio.to_thread(take, config) if take is not None else None

    @asynccontextmanager
    async def _turn_to_load(self, model_id: str) -> AsyncIterator[None]:
        """One model loads at a time: two at once would count the same free memory."""
        try:
            async with asyncio.timeout(self._worker.load_timeout_s):
                await self._loading.acquire()
        except TimeoutError:
            raise errors.Unavailable(
                f"Model {model_id} waited {self._worker.load_timeout_s:g} s for another one to load: try "
                "again later.",
                retry_after_s=10.0,
            ) from None
        try:
            yield
        finally:
            self._loading.release()

    # --- memory

    def _held(self, need: Placement) -> list[LoadedModel]:
        pinned = self.settings.pinned_models if need.displaces else self._residents
        return [
            resident.held(is_pinned=resident.model_id in pinned)
            for resident in self._residents.values()
            if resident.state == "loaded" and resident.model_id != need.config.model_id
        ]

    def _decision(self, need: Placement) -> tuple[LoadDecision, str]:
        """What a load takes now, and its numbers in words."""
        held, budget = self._held(need), self.settings.ram_budget_bytes
        return decide(need.need_bytes, budget, held), in_words(need, budget or 0, held)

    async def _make_room(self, need: Placement) -> bool:
        """Evict models until there is room. False: models that are in use would have to go. Raises:
        InsufficientMemory when the model can never be loaded, or only where it displaces others."""
        decision, numbers = self._decision(need)
        if decision.verdict == "never":
            pinned = f" with {', '.join(decision.blockers)} pinned" if decision.blockers else ""
            raise errors.InsufficientMemory(
                f"{numbers}{pinned}: choose a smaller model or quantization, lower "
                "engine.n_ctx, use a quantized engine.kv_type, or raise pool.ram_budget_bytes."
            )
        for model_id in decision.evict:
            await self.unload(model_id, "memory", f"memory wanted by {need.config.model_id}")
        return decision.verdict == "load"

    async def _wait_for_room(self, need: Placement | None, deadline_s: float) -> None:
        """Wait until a load may be tried again. Raises: Unavailable when no model became idle in time."""
        assert need is not None, "it was placed before"
        while (found := self._decision(need))[0].verdict == "wait":
            decision, numbers = found
            for model_id in decision.blockers:
                self._residents[model_id].ask_to_give_way()
            try:
                async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                raise errors.Unavailable(
                    f"{numbers}, and {', '.join(decision.blockers)} would have to go but is in use: try "
                    "again later, unload it, or raise pool.ram_budget_bytes.",
                    retry_after_s=10.0,
                ) from None

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- dying and idling

    def _on_death(self, resident: Resident, client: WorkerClient) -> None:
        """Count an unexpected death and start the worker again."""
        if self._is_closing:
            return
        resident.n_deaths += 1
        resident.breaker.record_death(time.monotonic())
        if resident.client is client:
            resident.let_go()
        if resident.starting is None and client.was_loaded:
            try:
                self._start(resident)
            except errors.EngineBroken as exc:
                resident.failure = exc.message
                logger.error(
                    "engine_broken model=%s n_deaths=%s", resident.model_id, resident.n_deaths
                )

    @property
    def is_watching(self) -> bool:
        """Whether the care for workers goes on: it has run lately, and no worker is silent past its end."""
        now = time.monotonic()
        bound_s = self._worker.hang_timeout_s + WATCH_GRACE_S
        silent = any(
            client.is_alive and now - client.last_beat_s > bound_s
            for resident in self.residents()
            if (client := resident.client) is not None
        )
        return not silent and now - self._watched_s < WATCH_GRACE_S

    async def _watch(self) -> None:
        """Kill workers without a heartbeat, which then are started again, and unload models that have been
        idle for too long or have grown."""
        last = time.monotonic()
        while True:
            interval_s = WATCH_INTERVAL_S if self.is_busy else IDLE_WATCH_INTERVAL_S
            await asyncio.sleep(interval_s)
            self._watched_s = now = time.monotonic()
            slept, last = now - last, now
            if slept > 5 * interval_s:
                continue  # this process itself did not run: heartbeats wait in the socket
            for resident in self.residents():
                with suppress(errors.EdgeAgentError):
                    await self._care(resident, now)

    async def _care(self, resident: Resident, now: float) -> None:
        client = resident.client
        if client is None or not client.is_alive:
            return
        silent_s = now - client.last_beat_s
        if silent_s > self._worker.hang_timeout_s + IDLE_HEARTBEAT_S:
            client.kill(f"silent for {silent_s:.0f} s")
            return
        stays = resident.model_id in (*self._stays, *self.settings.pinned_models)
        if (reason := resident.end_reason(now, self.settings, stays=stays)) is not None:
            await self.unload(resident.model_id, *reason)
            if stays:
                self._start(resident)
