"""The pool: pure decisions by table and property, then real workers under a real budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.client import EngineClient
from edgeagent.errors import (
    InsufficientMemory,
    InvalidParameter,
    ModelNotFound,
    Unavailable,
)
from edgeagent.pool import Placement, Pool
from edgeagent.pool.cores import share_cores
from edgeagent.pool.memory import LoadedModel, decide
from edgeagent.pool.resident_model import Resident
from edgeagent.settings.pool import PoolSettings
from edgeagent.settings.worker import WorkerSettings
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker.breaker import Breaker
from tests.conftest import wait_for
from tests.worker.counter import CounterClient, CounterConfig


def held(
    name: str, n_bytes: int, *, idle: bool = True, pinned: bool = False, used: float = 0
) -> LoadedModel:
    return LoadedModel(name, n_bytes, idle, pinned, used)


@pytest.mark.parametrize(
    ("need", "budget", "loaded", "verdict", "evict", "blockers"),
    [
        (50, None, [held("a", 500)], "load", [], []),
        (50, 100, [], "load", [], []),
        (50, 100, [held("a", 50)], "load", [], []),
        (50, 100, [held("a", 60)], "load", ["a"], []),
        (50, 100, [held("a", 30, used=2), held("b", 30, used=1)], "load", ["b"], []),
        (90, 100, [held("a", 30, used=2), held("b", 30, used=1)], "load", ["b", "a"], []),
        (50, 100, [held("a", 60, idle=False)], "wait", [], ["a"]),
        (90, 100, [held("a", 30), held("b", 30, idle=False)], "wait", [], ["b"]),
        (101, 100, [], "never", [], []),
        (50, 100, [held("a", 60, pinned=True)], "never", [], ["a"]),
        (50, 100, [held("p", 40, pinned=True, used=0), held("a", 20, used=9)], "load", ["a"], []),
    ],
)  # fmt: skip
def test_who_must_go_for_a_model(need, budget, loaded, verdict, evict, blockers):
    decision = decide(need, budget, loaded)
    assert (decision.verdict, decision.evict, decision.blockers) == (verdict, evict, blockers)


models = st.lists(
    st.builds(
        LoadedModel,
        st.uuids().map(str),
        st.integers(1, 100),
        st.booleans(),
        st.booleans(),
        st.floats(0, 100),
    ),
    max_size=8,
)


@given(need=st.integers(1, 300), budget=st.integers(1, 300), loaded=models)
def test_no_decision_overruns_the_budget_or_evicts_what_may_not_go(need, budget, loaded):
    decision = decide(need, budget, loaded)
    by_id = {model.model_id: model for model in loaded}
    assert all(by_id[i].is_idle and not by_id[i].is_pinned for i in decision.evict)
    if decision.verdict == "load":
        left = sum(model.n_bytes for model in loaded if model.model_id not in decision.evict)
        assert left + need <= budget
    if decision.verdict == "never":
        assert need + sum(model.n_bytes for model in loaded if model.is_pinned) > budget


@given(n_cores=st.integers(1, 64), wanted=st.lists(st.integers(1, 64), max_size=20))
def test_cores_are_never_given_twice_and_never_left_over_in_vain(n_cores, wanted):
    given_ = share_cores(n_cores, wanted)
    assert all(1 <= got <= want for got, want in zip(given_, wanted, strict=True))
    if len(wanted) <= n_cores:
        assert sum(given_) <= n_cores
        assert sum(given_) == min(n_cores, sum(wanted))
    else:
        assert given_ == [1] * len(wanted)


class Shelf:
    """Counters under several names, each said to need `need_bytes`: a pool knows no more of a worker."""

    def __init__(self, need_bytes: int) -> None:
        self.need_bytes = need_bytes

    def check(self, model_id: str) -> None:
        if not model_id.startswith(("model-", "counter")):
            raise ModelNotFound(f"{model_id} is not here")

    async def place(self, model_id: str) -> Placement:
        config = CounterConfig(model_id=model_id, path="counter", n_threads=2)
        return Placement(CounterClient, config, self.need_bytes, "all told")


@asynccontextmanager
async def pool_of(
    need_bytes: int = 100_000_000,
    place: Callable[[str], Awaitable[Placement]] | None = None,
    pinned: Sequence[str] = (),
    stays: frozenset[str] = frozenset(),
    budget_bytes: int | None = None,
    idle_unload_s: float = 0,
    load_timeout_s: float = 120,
) -> AsyncIterator[Pool]:
    shelf = Shelf(need_bytes)
    pool = Pool(
        PoolSettings(
            ram_budget_bytes=budget_bytes, idle_unload_s=idle_unload_s, pinned_models=list(pinned)
        ),
        WorkerSettings(load_timeout_s=load_timeout_s, hang_timeout_s=120, breaker_deaths=3),
        n_cores=2,
        check=shelf.check,
        place=place or shelf.place,
        stays=stays,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: Pool, model_id: str) -> list[int]:
    async with pool.lease(model_id, CounterClient) as counter:
        numbers = [reply.number async for reply in counter.count(3)]
        pool.record_answer(model_id)
        return numbers


async def test_a_model_is_loaded_when_asked_for_and_stays():
    async with pool_of() as pool:
        first = await ask(pool, "model-a")
        pid = pool.resident("model-a").client.pid
        assert await ask(pool, "model-a") == first
        assert pool.resident("model-a").client.pid == pid
        with pytest.raises(ModelNotFound):
            await ask(pool, "other")
        assert pool.resident("other") is None


async def test_the_least_recently_used_model_goes_when_memory_is_wanted():
    async with pool_of(need_bytes=100_000_000, budget_bytes=230_000_000) as pool:
        await ask(pool, "model-a")
        await ask(pool, "model-b")
        assert pool.n_bytes > 0
        await ask(pool, "model-a")
        clients = [resident.client for resident in pool.residents()]
        while not all(client.health.rss_bytes for client in clients):
            await asyncio.sleep(0.05)
        first = next(iter(pool.residents()))
        first.client.health = msgspec.structs.replace(first.client.health, reserved_bytes=7)
        assert first.n_bytes == first.client.health.rss_bytes + 7
        # Measured sizes have replaced the estimates: this is room for the third beside one of them.
        a, b = (resident.n_bytes for resident in pool.residents())
        budget = a + b // 2 + 100_000_000
        pool.settings = pool.settings.model_copy(update={"ram_budget_bytes": budget})
        await ask(pool, "model-c")
        assert pool.resident("model-b").state == "unloaded"
        assert pool.resident("model-a").state == "loaded"
        assert pool.resident("model-c").state == "loaded"


async def test_what_can_never_fit_is_refused_with_the_arithmetic():
    async with pool_of(need_bytes=900_000_000, budget_bytes=600_000_000) as pool:
        with pytest.raises(
            InsufficientMemory, match=r"needs 900 MB \(all told\).*budget is 600 MB"
        ):
            await ask(pool, "model-a")
        assert pool.resident("model-a").failure is not None


async def test_a_busy_model_is_waited_for_and_the_wait_is_bounded():
    async with pool_of(
        need_bytes=100_000_000, budget_bytes=110_000_000, load_timeout_s=120
    ) as pool:
        async with pool.lease("model-a", CounterClient):
            waiting = asyncio.create_task(ask(pool, "model-b"))
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            assert not done
        assert await waiting
        assert pool.resident("model-a").state == "unloaded"
        pool._worker = pool._worker.model_copy(update={"load_timeout_s": 0.3})
        async with pool.lease("model-b", CounterClient):
            with pytest.raises(Unavailable, match="model-b would have to go but is in use"):
                await ask(pool, "model-a")


async def test_a_model_that_waits_for_memory_holds_no_other_up():
    sizes = {"model-a": 100_000_000, "model-b": 100_000_000, "model-c": 5_000_000}
    asked: list[str] = []

    async def place(model_id: str) -> Placement:
        asked.append(model_id)
        config = CounterConfig(model_id=model_id, path="counter", n_threads=2)
        return Placement(CounterClient, config, sizes[model_id], "all told")

    async with pool_of(place=place, budget_bytes=150_000_000, load_timeout_s=60) as pool:
        async with pool.lease("model-a", CounterClient):
            waiting = asyncio.create_task(ask(pool, "model-b"))
            while "model-b" not in asked:
                await asyncio.sleep(0.01)
            assert await ask(pool, "model-c") and not waiting.done()
        assert await waiting


async def test_a_lease_that_gives_way_is_told_when_its_memory_is_wanted():
    async with pool_of(need_bytes=100_000_000, budget_bytes=110_000_000) as pool:
        wanted = asyncio.Event()

        async def background() -> None:
            async with pool.lease("model-a", CounterClient, give_way=wanted):
                started.set()
                await wanted.wait()

        started = asyncio.Event()
        task = asyncio.create_task(background())
        async with asyncio.timeout(60):
            await started.wait()
            await ask(pool, "model-a")
            assert not wanted.is_set()  # nobody wants the memory
            async with pool.lease("model-b", CounterClient):
                await task
                assert pool.resident("model-a").state == "unloaded"


async def test_a_lease_does_not_give_way_beside_one_that_stays():
    async with pool_of(need_bytes=100_000_000, budget_bytes=110_000_000) as pool:
        wanted = asyncio.Event()
        async with (
            pool.lease("model-a", CounterClient, give_way=wanted),
            pool.lease("model-a", CounterClient),
        ):
            pool._worker = pool._worker.model_copy(update={"load_timeout_s": 0.3})
            with pytest.raises(Unavailable, match="model-a would have to go"):
                await ask(pool, "model-b")
        assert not wanted.is_set()


async def test_a_part_of_other_models_displaces_none():
    async def place(model_id: str) -> Placement:
        config = CounterConfig(model_id=model_id, path="counter", n_threads=2)
        is_part = model_id == "model-part"
        return Placement(CounterClient, config, 100_000_000, "all told", displaces=not is_part)

    async with pool_of(place=place, budget_bytes=120_000_000) as pool:
        await ask(pool, "model-part")
        await ask(pool, "model-a")
        assert pool.resident("model-part").state == "unloaded", "it goes for others"
        with pytest.raises(InsufficientMemory):
            await ask(pool, "model-part")
        assert pool.resident("model-a").state == "loaded"


async def test_a_pinned_model_never_goes():
    async with pool_of(
        need_bytes=100_000_000, budget_bytes=120_000_000, pinned=["model-a"]
    ) as pool:
        await ask(pool, "model-a")
        with pytest.raises(InsufficientMemory, match="model-a pinned"):
            await ask(pool, "model-b")
        assert pool.resident("model-a").state == "loaded"


async def test_an_idle_model_is_unloaded_after_its_time_and_the_default_stays():
    async with pool_of(idle_unload_s=0.2, stays=frozenset({"model-a"})) as pool:
        await ask(pool, "model-a")
        await ask(pool, "model-b")
        async with asyncio.timeout(60):
            while pool.resident("model-b").state != "unloaded":
                await asyncio.sleep(0.05)
        assert pool.resident("model-a").state == "loaded"


def test_a_worker_that_has_grown_is_ended_once_it_is_idle():
    need, fine, grown = 200 << 20, 350 << 20, 400 << 20
    config = CounterConfig(model_id="a", path="counter", n_threads=1)
    health: Any = SimpleNamespace(rss_bytes=grown, reserved_bytes=0)
    client: Any = SimpleNamespace(is_alive=True, health=health)
    resident = Resident(
        "a", Breaker(5, 60), client, placement=Placement(CounterClient, config, need, "")
    )
    resident.last_used_s, idle, never = 100.0, 131.0, PoolSettings(idle_unload_s=0)
    for stays in (True, False):
        assert resident.end_reason(idle, never, stays=stays) == ("growth", "400 MiB instead of 200")
    assert resident.end_reason(120.0, never, stays=True) is None, "used a moment ago"
    resident.n_leases = 1
    assert resident.end_reason(idle, never, stays=True) is None
    resident.n_leases, resident.ended_s = 0, 101.0
    assert resident.end_reason(idle, never, stays=True) is None, (
        "not used since it was started anew"
    )
    resident.ended_s, health.rss_bytes = 0.0, fine
    assert resident.end_reason(idle, never, stays=True) is None
    assert resident.end_reason(1001.0, PoolSettings(idle_unload_s=900), stays=True) is None
    assert resident.end_reason(1001.0, PoolSettings(idle_unload_s=900), stays=False) == (
        "idle",
        "idle for 901 s",
    )


async def test_a_default_model_that_has_grown_is_started_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeagent.pool.memory.GROWTH_BYTES", 0)
    monkeypatch.setattr("edgeagent.pool.resident_model.GROWTH_IDLE_S", 0.0)
    async with pool_of(need_bytes=1, stays=frozenset({"counter"})) as pool:
        await ask(pool, "counter")
        (resident,) = pool.residents()
        first = resident.client
        async with asyncio.timeout(60):
            while resident.n_loads < 2 or resident.state != "loaded":
                await asyncio.sleep(0.05)
        assert resident.unloads["growth"] == 1 and resident.client is not first
        assert await ask(pool, "counter")


async def test_requests_that_arrive_while_a_model_loads_share_the_one_load():
    async with pool_of() as pool:

        async def worker_and_numbers() -> tuple[int | None, list[int]]:
            async with pool.lease("model-a", CounterClient) as client:
                return client.pid, await ask(pool, "model-a")

        answers = await asyncio.gather(*(worker_and_numbers() for _ in range(6)))
        assert len({pid for pid, _ in answers}) == 1
        assert all(numbers == [1, 2, 3] for _, numbers in answers)
        assert pool.resident("model-a").n_deaths == 0


async def test_two_busy_models_divide_the_cores_and_one_gets_them_back():
    async with pool_of() as pool, pool.lease("model-a", CounterClient) as first:
        assert first.limits.n_threads == 2
        async with pool.lease("model-b", CounterClient) as second:
            assert (first.limits.n_threads, second.limits.n_threads) == (1, 1)
        await ask(pool, "model-a")
        assert first.limits.n_threads == 2


async def test_workers_of_two_kinds_share_one_budget_and_the_cores(stories):
    async def place(model_id: str) -> Placement:
        if model_id == "counter":
            counter = CounterConfig(model_id=model_id, path="counter", n_threads=2)
            return Placement(CounterClient, counter, 100_000_000, "all told")
        engine = EngineConfig(model_id=model_id, path=str(stories), n_ctx=512, n_threads=2)
        return Placement(EngineClient, engine, 100_000_000, "all told")

    async with pool_of(place=place) as pool:
        async with pool.lease("counter", CounterClient) as counter:
            async with pool.lease("model-a", EngineClient) as engine:
                assert (counter.limits.n_threads, engine.limits.n_threads) == (1, 1)
            assert [reply.number async for reply in counter.count(3)] == [1, 2, 3]
        with pytest.raises(InvalidParameter, match="another kind of work"):
            async with pool.lease("counter", EngineClient):
                pass
        assert pool.resident("counter").n_leases == 0
    async with pool_of(place=place, budget_bytes=150_000_000) as pool:
        async with pool.lease("model-a", EngineClient):
            pass
        async with pool.lease("counter", CounterClient):
            assert pool.resident("model-a").state == "unloaded"
            pool.forget_prefixes()


async def test_a_killed_worker_is_brought_up_again_without_being_asked():
    async with pool_of() as pool:
        await ask(pool, "model-a")
        pid = pool.resident("model-a").client.pid
        pool.resident("model-a").client.kill("test")
        async with asyncio.timeout(60):
            while (
                pool.resident("model-a").state != "loaded"
                or pool.resident("model-a").client.pid == pid
            ):
                await asyncio.sleep(0.02)
        assert await ask(pool, "model-a")


def test_an_unloaded_models_memory_comes_back():
    import psutil

    async def run() -> int:
        async with pool_of() as pool:
            await ask(pool, "model-a")
            pid = pool.resident("model-a").client.pid
            assert await pool.unload("model-a", "request")
            assert not await pool.unload("model-a", "request")
            return pid

    pid = asyncio.run(run())
    wait_for(lambda: not psutil.pid_exists(pid))


async def test_whoever_waits_for_a_model_that_is_unloaded_while_it_loads_is_told_so():
    async with pool_of() as pool:
        waiting = [asyncio.create_task(ask(pool, "model-a")) for _ in range(2)]
        async with asyncio.timeout(60):
            while not (resident := pool.resident("model-a")) or resident.starting is None:
                await asyncio.sleep(0)
        started = resident.starting
        await pool.unload("model-a", "request")
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, Unavailable) and error.retry_after_s
        assert started.cancelled()
        assert await ask(pool, "model-a"), "the next one loads it again"
