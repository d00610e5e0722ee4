"""`Idempotency-Key`: requests that come again, of a layer over a counting application and of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import openai
import pytest

from edgeagent.api.http.body_memory import Bodies
from edgeagent.api.http.errors import encoded
from edgeagent.api.http.idempotency import Idempotency
from edgeagent.api.http.one_shot_response import send_whole, whole_json
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import QueueFull
from edgeagent.serving.remembered_answers import RememberedAnswers
from edgeagent.settings.http import HttpSettings
from edgeagent.types.caller import LOCAL
from tests.conftest import TALES_CHAT, DaemonProcess

ASK: dict[str, Any] = {
    "model": TALES_CHAT,
    "messages": [{"role": "user", "content": "Tell me a tale"}],
    "max_tokens": 8,
    "temperature": 1.0,
}
FORM = b"multipart/form-data; boundary="


class House:
    """The layer over an application that counts its requests and waits for `may_end`."""

    def __init__(self) -> None:
        self.n_done = 0
        self.caller = LOCAL
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.fails = False
        self.was_told_to_leave = False
        self.remembered = RememberedAnswers()
        self._bodies = Bodies(HttpSettings())
        self.layer = Idempotency(self._app, self.remembered, grace_s=0.0)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.create_task(self._watch(receive))
        end = asyncio.create_task(self.may_end.wait())
        await asyncio.wait({gone, end}, return_when=asyncio.FIRST_COMPLETED)
        self.was_told_to_leave = gone.done()
        for task in (gone, end):
            task.cancel()
        if self.was_told_to_leave:
            return
        self.n_done += 1
        if self.fails:
            await send_whole(send, *encoded(QueueFull("full", retry_after_s=1), scope))
        else:
            await send_whole(send, *whole_json(b'{"n": %d}' % self.n_done))

    async def _watch(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def post(
        self,
        body: bytes = b"{}",
        *,
        key: str | None = "k",
        path: str = "/v1/chat/completions",
        left: Callable[[], Awaitable[object]] | None = None,
        content_type: bytes = b"application/json",
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer; status 0 without one. `left` returns when the client
        leaves."""
        sent: list[Any] = []
        headers = [(b"content-type", content_type)]
        headers += [(b"idempotency-key", key.encode())] if key is not None else []
        scope: Any = {
            "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers,
        }  # fmt: skip

        async def whole() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def receive() -> Any:
            if left is None:
                await asyncio.Event().wait()
            else:
                await left()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        context = context_of(scope)
        context.caller = self.caller
        context.body = await self._bodies.read(whole, "local")
        await self.layer(scope, receive, send)
        if not sent:
            return 0, {}, b""
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m["body"] for m in sent[1:])


async def test_a_request_that_comes_again_is_answered_as_before_and_done_once():
    house = House()
    first, again = await house.post(), await house.post()
    assert first[2] == again[2] == b'{"n": 1}' and house.n_done == 1
    assert b"idempotent-replayed" not in first[1] and again[1][b"idempotent-replayed"] == b"true"
    assert (await house.post(key="other"))[2] == b'{"n": 2}'
    assert (await house.post(key=None))[2] == b'{"n": 3}'


async def test_another_request_with_the_same_key_is_a_conflict():
    house = House()
    await house.post()
    for wrong in (house.post(b'{"n": 2}'), house.post(path="/v1/completions")):
        status, headers, _ = await wrong
        assert status == 409 and headers[b"x-should-retry"] == b"false"
    assert house.n_done == 1


async def test_one_that_comes_while_the_first_runs_waits_for_it():
    house = House()
    house.may_end.clear()
    tasks = [asyncio.create_task(house.post()) for _ in range(3)]
    await asyncio.sleep(0)
    house.may_end.set()
    assert [answer[2] for answer in await asyncio.gather(*tasks)] == [b'{"n": 1}'] * 3
    assert house.n_done == 1


async def test_what_failed_is_done_again():
    house = House()
    house.fails = True
    assert (await house.post())[0] == 429
    house.fails = False
    assert (await house.post())[0] == 200 and house.n_done == 2


async def test_one_that_waits_for_a_failure_does_it_itself():
    house = House()
    house.may_end.clear()
    house.fails = True
    first = asyncio.create_task(house.post())
    second = asyncio.create_task(house.post())
    while len(house.remembered) == 0:
        await asyncio.sleep(0)
    house.may_end.set()
    assert (await first)[0] == 429
    assert (await second)[0] == 429 and house.n_done == 2


async def test_the_request_goes_on_for_the_one_that_came_again_when_the_first_client_leaves():
    house = House()
    house.may_end.clear()
    leaves = asyncio.Event()
    first = asyncio.create_task(house.post(left=leaves.wait))
    second = asyncio.create_task(house.post())
    while not any(attempt.n_waiting for attempt in house.remembered._attempts.values()):
        await asyncio.sleep(0)
    leaves.set()
    for _ in range(20):
        await asyncio.sleep(0)
    house.may_end.set()
    await first
    assert (await second)[2] == b'{"n": 1}' and house.n_done == 1


async def test_it_is_cancelled_when_its_client_leaves_and_nobody_waits():
    house = House()
    house.may_end.clear()
    leaves = asyncio.Event()
    leaves.set()
    assert (await house.post(left=leaves.wait))[0] == 0
    assert house.was_told_to_leave and len(house.remembered) == 0


async def test_a_form_is_the_same_whatever_its_boundary():
    house = House()
    for mark in (b"0123456789abcdef", b"fedcba9876543210"):
        body = b"--" + mark + b"\r\n\r\naudio\r\n--" + mark + b"--\r\n"
        answer = await house.post(body, path="/v1/audio/transcriptions", content_type=FORM + mark)
        assert answer[2] == b'{"n": 1}'


async def test_forms_that_differ_in_what_reads_like_a_boundary_differ():
    house = House()
    path = "/v1/audio/transcriptions"
    long = b"0123456789abcdef"
    for mark, there in ((b"a", b"audio"), (long, b"audio" + long)):
        first = b"--" + mark + b"\r\n\r\n" + there + b"\r\n--" + mark + b"--\r\n"
        second = first.replace(there, there.replace(mark, b""))
        key = mark.decode()
        assert (await house.post(first, key=key, path=path, content_type=FORM + mark))[0] == 200
        answer = await house.post(second, key=key, path=path, content_type=FORM + mark)
        assert answer[0] == 409


async def test_another_api_key_of_the_owner_is_not_given_the_answer():
    house = House()
    await house.post()
    house.caller = msgspec.structs.replace(LOCAL, key_id="key_2")
    assert (await house.post())[0] == 409 and house.n_done == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_a_key_that_is_none_is_refused(key: str):
    house = House()
    assert (await house.post(key=key))[0] == 400 and house.n_done == 0


def test_the_official_client_gets_one_answer_for_one_key(tales_daemon: DaemonProcess):
    with tales_daemon.client() as client:

        def ask(key: str, **more: Any) -> Any:
            return client.chat.completions.create(
                **(ASK | more), extra_headers={"Idempotency-Key": key}
            )

        with ThreadPoolExecutor(4) as pool:
            ids = {answer.id for answer in pool.map(ask, ["same"] * 4)}
        assert len(ids) == 1
        assert ask("other").id not in ids
        with pytest.raises(openai.ConflictError) as caught:
            ask("same", max_tokens=9)
        assert caught.value.code == "idempotency_key_reused"


def test_a_stream_is_played_again_as_it_was(tales_daemon: DaemonProcess):
    body, headers = ASK | {"stream": True}, {"Idempotency-Key": "stream"}
    url = f"{tales_daemon.url}/v1/chat/completions"
    first = httpx.post(url, json=body, headers=headers)
    again = httpx.post(url, json=body, headers=headers)
    assert first.text == again.text and first.text.endswith("data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"]
