"""The life of a worker of any kind, by one that counts: start, replies, cancel, refusal, death, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest

from edgeagent.errors import EngineDied, InvalidParameter, ModelUnusable
from edgeagent.types.worker_config import ComputeLimits
from edgeagent.worker import client as worker_client
from edgeagent.worker import frames
from edgeagent.worker.client import WorkerClient
from tests.worker.counter import CounterClient, CounterConfig, Square

CONFIG = CounterConfig(model_id="counter", path="counter")
# It dies at 13; counts of this length never end by themselves before it.
pytestmark = pytest.mark.process


@pytest.fixture
async def counter() -> AsyncIterator[CounterClient]:
    client = await CounterClient.start(CONFIG, timeout_s=60)
    yield client
    await client.close()
    await client.close()


async def test_replies_come_in_order_and_end(counter):
    numbers = counter.count(5)
    assert [reply.number async for reply in numbers] == [1, 2, 3, 4, 5]
    assert await numbers.take() == []
    assert counter.n_open == 0


async def test_two_streams_and_a_result_do_not_mix(counter):
    first, second = counter.count(3), counter.count(9)
    assert await counter.square(12) == 144
    assert [reply.number async for reply in second] == list(range(1, 10))
    assert [reply.number async for reply in first] == [1, 2, 3]


async def test_a_refusal_is_the_workers_own_error(counter):
    with pytest.raises(InvalidParameter, match="at least 1") as caught:
        await counter.count(0).take()
    assert caught.value.param == "upto"
    assert await counter.square(3) == 9


async def test_a_cancelled_stream_still_gets_its_last_reply(counter):
    numbers = counter.count(12)
    numbers.cancel()
    numbers.cancel()
    assert counter.n_open == 0
    replies = [reply async for reply in numbers]
    assert replies[-1].is_last


async def test_giving_up_on_a_result_leaves_nothing_open(counter):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await counter.square(-1)  # never answered
    assert counter.n_open == 0
    assert await counter.square(2) == 4


async def test_threads_are_granted_from_the_next_step_on(counter):
    counter.set_limits(ComputeLimits(n_threads=1))
    (reply,) = [reply async for reply in counter.count(1)]
    assert reply.n_threads == 1


async def test_the_heartbeat_tells_of_the_workers_memory(counter):
    async with asyncio.timeout(60):
        while not counter.health.rss_bytes:
            await asyncio.sleep(0.02)
    assert counter.facts.pid == counter.pid


async def test_a_death_ends_every_request_with_the_same_error_and_is_reported_once():
    deaths = []
    client = await CounterClient.start(
        CONFIG, timeout_s=60, on_death=lambda client, status: deaths.append(status)
    )
    waiting = asyncio.create_task(client.square(-1))
    await asyncio.sleep(0)
    with pytest.raises(EngineDied, match=r"status 13.*send it again"):
        async for reply in client.count(20):
            assert reply.number <= 13
    with pytest.raises(EngineDied):
        await waiting
    assert deaths == [13]
    assert not client.is_alive and client.was_loaded
    with pytest.raises(EngineDied):
        client.count(1)
    await client.close()
    assert deaths == [13]


@pytest.mark.parametrize("n_turns", [1, 2, 3, 10])
async def test_a_start_that_is_given_up_ends_its_process_and_is_no_death(n_turns: int, caplog):
    """After any number of turns of the event loop, the first of which come before anybody listens."""
    deaths = []
    process = CounterClient.launch(CONFIG, "info")
    start = asyncio.create_task(
        CounterClient.start(
            CONFIG,
            timeout_s=60,
            process=process,
            on_death=lambda client, status: deaths.append(status),
        )
    )
    for _ in range(n_turns):
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert process.popen.poll() is not None, "it holds no memory any more"
    assert not deaths and "worker_died" not in caplog.text


async def test_a_model_that_cannot_be_loaded_says_why_and_is_no_death():
    deaths = []
    config = CounterConfig(model_id="counter", path="counter", failure="It cannot count.")
    with pytest.raises(ModelUnusable, match="It cannot count"):
        await CounterClient.start(
            config, timeout_s=60, on_death=lambda client, status: deaths.append(status)
        )
    assert deaths == []


async def test_what_is_not_a_message_ends_the_worker():
    client = await CounterClient.start(CONFIG, timeout_s=60)
    waiting = asyncio.create_task(client.square(-1))  # never answered
    await asyncio.sleep(0)
    client.data_received(b"\0\0\0\1x")
    with pytest.raises(EngineDied, match="SIGKILL"):
        await waiting
    await client.close()


async def test_a_stream_that_nobody_reads_is_cancelled(counter, monkeypatch):
    monkeypatch.setattr("edgeagent.worker.reply_stream.MAX_UNREAD_REPLIES", 2)
    numbers = counter.count(9)
    async with asyncio.timeout(60):
        while counter.n_open:
            await asyncio.sleep(0.01)
    with pytest.raises(Exception, match="was not read"):
        async for _ in numbers:
            pass


class Transport:
    """Takes what is written and says that it is full."""

    def __init__(self, client: WorkerClient) -> None:
        self.written: list[bytes] = []
        self._client = client
        client._transport = self  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._client.pause_writing()

    def is_closing(self) -> bool:
        return False


async def test_long_messages_wait_until_those_before_are_read_and_others_go_between():
    client = CounterClient(CONFIG)
    transport = Transport(client)
    squares = [Square(i, i) for i in range(3)]
    client._send_in_turn(squares[:2])
    client._send_in_turn(squares[2:])
    assert transport.written == [frames.encode(squares[0])]
    client._send(Square(9, 9))
    for _ in range(3):
        client.resume_writing()
    wanted = [squares[0], Square(9, 9), *squares[1:]]
    assert transport.written == [frames.encode(square) for square in wanted]


async def test_closing_ends_the_process():
    client = await CounterClient.start(CONFIG, timeout_s=60)
    pid = client.pid
    await client.close()
    assert pid is not None and not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("status", "words"),
    [(None, "no status"), (-9, "signal SIGKILL"), (1, "status 1"), (-99, "status -99")],
)
def test_an_exit_status_in_words(status, words):
    assert worker_client.describe_exit(status) == words


def test_a_client_must_say_what_its_messages_are():
    with pytest.raises(TypeError, match="abstract"):
        WorkerClient(CONFIG)  # type: ignore[abstract]
