"""Replies reach a receiver as they come, and in order."""

from __future__ import annotations

import asyncio

import pytest

from edgeagent.errors import EngineDied
from edgeagent.worker.reply_stream import ReplyStream

LAST = 9


class Numbers(ReplyStream[int]):
    def __init__(self) -> None:
        super().__init__(1, lambda request_id: None)

    def is_last(self, reply: int) -> bool:
        return reply == LAST


async def taken(stream: Numbers) -> asyncio.Task[list[int]]:
    """A task that waits in `take`."""
    task = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    return task


async def test_a_receiver_gets_replies_while_take_waits_and_take_the_others():
    stream, got = Numbers(), []
    stream.receiver = lambda reply: reply != 3 and not got.append(reply)
    stream.put(0)  # nobody reads yet
    assert await stream.take() == [0]
    task = await taken(stream)
    stream.put(1)
    stream.put(2)
    assert got == [1, 2] and not task.done()
    stream.put(3)  # declined
    stream.put(4)  # waits behind it
    assert await task == [3, 4] and got == [1, 2]
    stream.put(5)  # the reader does something else
    assert await stream.take() == [5] and got == [1, 2]


async def test_the_last_reply_and_errors_come_by_take():
    stream, got = Numbers(), []
    stream.receiver = lambda reply: not got.append(reply)
    task = await taken(stream)
    stream.put(1)
    assert stream.put(LAST)
    assert await task == [LAST] and await stream.take() == [] and got == [1]
    stream = Numbers()
    stream.receiver = lambda reply: not got.append(reply)
    task = await taken(stream)
    stream.fail(EngineDied("gone"))
    with pytest.raises(EngineDied):
        await task


async def test_a_receiver_that_fails_ends_the_stream_and_nothing_else():
    stream = Numbers()

    def fail(reply: int) -> bool:
        raise RuntimeError("no")

    stream.receiver = fail
    task = await taken(stream)
    assert not stream.put(1) and not stream.put(2)
    assert await task == [1, 2]
    with pytest.raises(RuntimeError, match="no"):
        await stream.take()


async def test_a_reader_that_was_cancelled_is_passed_nothing():
    stream, got = Numbers(), []
    stream.receiver = lambda reply: not got.append(reply)
    task = await taken(stream)
    task.cancel()
    stream.put(1)
    await asyncio.gather(task, return_exceptions=True)
    assert got == [] and await stream.take() == [1]
