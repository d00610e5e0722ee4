"""Who gets the next place at an upstream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from edgeagent.errors import UpstreamUnavailable
from edgeagent.routing.upstreams.faults import Fault
from edgeagent.serving.upstreams import waiting_line
from edgeagent.serving.upstreams.upstream import Upstream
from edgeagent.serving.upstreams.waiting_line import WaitingLine
from edgeagent.settings.upstreams import UpstreamSettings

BIG = "big"


def upstream(name: str = "a", **more: Any) -> Upstream:
    """An upstream with no place left."""
    given = {"max_concurrent": 1, "breaker_failures": 1} | more
    models = {BIG: "x", "other": "y"}
    found = Upstream(
        UpstreamSettings(name=name, url="http://localhost/v1", models=models, keys=["*"], **given)
    )
    found.n_running = found.settings.max_concurrent
    return found


class Requests:
    """Requests that wait, by number; `woken` has the numbers in the order of their places."""

    def __init__(self, line: WaitingLine) -> None:
        self.line = line
        self.woken: list[int] = []
        self.tasks: list[asyncio.Task[Upstream | None]] = []

    async def add(self, *upstreams: Upstream, model_id: str = BIG, wait_s: float = 10.0) -> None:
        number = len(self.tasks)

        async def wait() -> Upstream | None:
            until_s = asyncio.get_running_loop().time() + wait_s
            place = await self.line.wait(model_id, upstreams, until_s)
            self.woken.append(number)
            return place

        self.tasks.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UpstreamUnavailable):
                await task


@pytest.fixture
async def requests():
    found = Requests(WaitingLine())
    yield found
    await found.end()
    assert not found.line._lines and not found.line._later and found.line._n_waiting == 0


async def turns(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_each_free_place_wakes_one_request_in_order_of_arrival(requests):
    one = upstream()
    for _ in range(4):
        await requests.add(one)
    for n in range(1, 4):
        requests.line.leave(one)
        await turns()
        assert requests.woken == list(range(n))
        assert one.n_running == 1, "the place is taken before the request runs"


async def test_a_request_waits_for_several_upstreams_and_takes_one_place(requests):
    first, second = upstream("a"), upstream("b")
    await requests.add(first, second)
    await requests.add(first)
    requests.line.leave(second)
    requests.line.leave(first)
    await turns()
    assert [task.result() for task in requests.tasks] == [second, first]


async def test_a_request_that_was_woken_and_leaves_passes_its_place_on(requests):
    one = upstream()
    for _ in range(3):
        await requests.add(one)
    requests.tasks[1].cancel()  # one that was not
    requests.line.leave(one)
    requests.tasks[0].cancel()
    await turns()
    assert requests.woken == [2] and one.n_running == 1


async def test_the_wait_has_one_end_and_the_line_a_bound(requests, monkeypatch):
    one = upstream()
    await requests.add(one, wait_s=0.01)
    with pytest.raises(UpstreamUnavailable, match="busy"):
        await requests.tasks[0]
    monkeypatch.setattr(waiting_line, "MAX_WAITING", 1)
    await requests.add(one)
    await requests.add(one)
    with pytest.raises(UpstreamUnavailable, match="busy"):
        await requests.tasks[2]


async def test_once_all_upstreams_are_avoided_nobody_waits_any_more(requests):
    one, two = upstream("a"), upstream("b")
    for _ in range(40):
        await requests.add(one)
    await requests.add(one, two)
    one.record_fault(Fault("failed", "x"), BIG)
    requests.line.leave(one)
    await turns(8)
    assert requests.woken == list(range(40)) and one.n_running == 0
    assert all(task.result() is None for task in requests.tasks[:40])
    requests.line.leave(two)
    await turns()
    assert requests.tasks[40].result() is two


async def test_an_upstream_that_is_avoided_no_longer_is_offered(requests):
    one, two = upstream("a"), upstream("b")
    one.record_fault(Fault("busy", "x", retry_after_s=0.02), BIG)
    await requests.add(one, two)
    requests.line.leave(one)
    await turns()
    assert not requests.woken
    assert await requests.tasks[0] is one


async def test_a_model_that_is_absent_keeps_nobody_from_another_one(requests):
    one, two = upstream("a"), upstream("b")
    one.record_fault(Fault("absent", "x"), BIG)
    await requests.add(one, two)
    await requests.add(one, model_id="other")
    requests.line.leave(one)
    await turns()
    assert requests.woken == [1]
    one.record_fault(Fault("absent", "x"), "other")
    await requests.add(one, model_id="other")
    requests.line.leave(one)
    await turns(6)
    assert requests.tasks[2].result() is None
