"""Bodies of many clients at once: whose is kept, whose gives way, and what is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeagent.api.http.body_memory import BLOCK_BYTES, FREE_BYTES, SMALL_BYTES, Bodies, Body
from edgeagent.errors import BadRequest, BodyTooLarge, RateLimited, Unavailable
from edgeagent.settings.http import HttpSettings

MB = 1 << 20


class Client:
    """A client that sends a body in pieces of its choosing."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> Any:
        return await self._messages.get()

    def send(self, n_bytes: int, *, more: bool = True) -> None:
        self._messages.put_nowait(
            {"type": "http.request", "body": b"x" * n_bytes, "more_body": more}
        )

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


def bodies(max_body: int = 4 * MB, max_all: int = 16 * MB, timeout_s: float = 30.0) -> Bodies:
    return Bodies(
        HttpSettings.model_construct(
            max_body_bytes=max_body, max_bodies_bytes=max_all, body_timeout_s=timeout_s
        )
    )


async def whole(all_: Bodies, n_bytes: int, holder: str = "key") -> Body:
    client = Client()
    client.send(n_bytes, more=False)
    return await all_.read(client.receive, holder)


async def arriving(all_: Bodies, n_bytes: int, holder: str = "key") -> asyncio.Task[Body]:
    """A body of which `n_bytes` have come, and the rest never does."""
    client = Client()
    client.send(n_bytes)
    task = asyncio.create_task(all_.read(client.receive, holder))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_a_body_is_read_whole_and_counts_until_its_request_ends():
    all_ = bodies()
    body = await whole(all_, MB)
    assert all_.n_bytes == MB - FREE_BYTES
    assert len(body.take()) == MB and body.take() == b""
    assert all_.n_bytes == MB - FREE_BYTES, "what was made of it lives on"
    body.close()
    body.close()
    assert all_.n_bytes == 0


async def test_small_bodies_pass_when_all_room_is_taken():
    all_ = bodies(max_all=4 * MB)
    held = [await whole(all_, 4 * MB)]
    held.append(await whole(all_, FREE_BYTES, "other"))
    with pytest.raises(Unavailable) as caught:
        await whole(all_, FREE_BYTES + MB, "other")
    assert caught.value.retry_after_s
    held[0].close()
    held.append(await whole(all_, FREE_BYTES + MB, "other"))


async def test_sixty_unfinished_bodies_take_no_more_than_the_bound():
    all_ = bodies()
    tasks = [await arriving(all_, 4 * MB - 1) for _ in range(60)]
    assert all_.n_bytes <= all_.max_bytes
    for _ in range(3):
        await asyncio.sleep(0)
    evicted = [task for task in tasks if task.done()]
    assert len(evicted) >= 56 and tasks[-1] not in evicted, "the oldest give way"
    for task in evicted:
        assert isinstance(task.exception(), Unavailable)
    good = await whole(all_, 3 * MB)
    assert len(good.take()) == 3 * MB
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    good.close()
    assert all_.n_bytes == 0


async def test_the_caller_who_holds_most_gives_way():
    all_ = bodies(max_all=8 * MB)
    modest = await arriving(all_, 2 * MB, "modest")
    greedy = [await arriving(all_, 2 * MB, "greedy") for _ in range(3)]
    good = await whole(all_, 2 * MB, "good")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not modest.done() and greedy[0].done() and not greedy[2].done()
    good.close()
    for task in (modest, *greedy):
        task.cancel()
    await asyncio.gather(modest, *greedy, return_exceptions=True)


async def test_one_key_cannot_hold_all_room_with_requests_that_run():
    all_ = bodies()
    held = [await whole(all_, 4 * MB, "greedy") for _ in range(3)]
    with pytest.raises(RateLimited):
        await whole(all_, 4 * MB, "greedy")
    held.append(await whole(all_, 4 * MB, "good"))
    for body in held:
        body.close()


async def test_room_for_an_upload_is_not_there_for_other_bodies():
    settings = HttpSettings.model_construct(
        max_body_bytes=4 * MB, max_bodies_bytes=12 * MB, body_timeout_s=30.0
    )
    all_ = Bodies(settings, max_upload_bytes=32 * MB)
    crowd = [await arriving(all_, 3 * MB, f"key_{i}") for i in range(20)]
    assert all_.n_bytes <= 12 * MB
    client = Client()
    client.send(20 * MB, more=False)
    upload = await all_.read(client.receive, "key_0", max_bytes=32 * MB)
    assert upload.n_received == 20 * MB
    chat = await whole(all_, 3 * MB, "key_0")
    assert chat.n_received == 3 * MB, "a key that uploads may also chat"
    for body in (upload, chat):
        body.close()
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert all_.n_bytes == 0


async def test_a_body_is_refused_at_the_piece_that_is_too_much():
    all_ = bodies(max_body=1024)
    with pytest.raises(BodyTooLarge, match="1024"):
        await whole(all_, 1025)
    client = Client()
    client.send(1000)
    client.send(100)
    with pytest.raises(BodyTooLarge):
        await all_.read(client.receive, "key")
    assert all_.n_bytes == 0


async def test_a_client_that_stops_or_leaves_frees_its_room():
    all_ = bodies(timeout_s=0.01)
    task = await arriving(all_, 100)
    with pytest.raises(BadRequest, match=r"0\.01 s"):
        await task
    client = Client()
    client.send(MB)
    client.leave()
    with pytest.raises(BadRequest, match="ended before"):
        await bodies().read(client.receive, "key")
    assert all_.n_bytes == 0


async def test_a_body_that_a_route_does_not_take_is_handed_on_once():
    all_ = bodies()
    client = Client()
    client.send(3, more=False)
    body = await all_.read(client.receive, "key")
    receive = body.receive(client.receive)
    assert await receive() == {"type": "http.request", "body": b"xxx", "more_body": False}
    client.leave()
    assert (await receive())["type"] == "http.disconnect"
    body.close()


@pytest.mark.parametrize("is_by_piece", [False, True])
async def test_bodies_of_every_size_are_what_was_sent(is_by_piece):
    sizes = (0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7)
    for n_bytes in sizes:
        for step in (1000, SMALL_BYTES, MB):
            all_, messages = bodies(), asyncio.Queue[dict[str, Any]]()
            data = bytes(i * 7 % 251 for i in range(n_bytes))
            parts = [data[at : at + step] for at in range(0, n_bytes, step)] or [b""]
            for i, part in enumerate(parts):
                more = i + 1 < len(parts)
                messages.put_nowait({"type": "http.request", "body": part, "more_body": more})
            body = await all_.read(messages.get, "key")
            assert body.received == data
            if is_by_piece:
                assert b"".join(body.take_pieces()) == data and not list(body.take_pieces())
            else:
                assert body.take() == data and body.take() == b""
            body.close()
            assert all_.n_bytes == 0
