"""`Idempotency-Key`: a POST that is sent again is answered as the first time, and done once.

    1. the same key of an owner with another request: 409
    2. the first one still runs: wait for its end; it goes on for a while when its client has left, and to
       its end if somebody waits by then
    3. it has been answered: the same answer, with `idempotent-replayed: true`
    4. it failed, or its answer was too long to keep: it is done again

Only answers without an error are kept (`serving/remembered_answers.py`). An ASGI layer behind authentication.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import cast

from litestar.types import ASGIApp, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send

from edgeagent.api.http.body_memory import Body
from edgeagent.api.http.disconnect import run_until_gone
from edgeagent.api.http.errors import encoded, translate
from edgeagent.api.http.one_shot_response import send_whole
from edgeagent.api.http.path_scopes import parts
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import BadRequest
from edgeagent.serving.remembered_answers import (
    MAX_ANSWER_BYTES,
    Attempt,
    RememberedAnswers,
    WholeAnswer,
)

HEADER = b"idempotency-key"
MAX_KEY = 255
REPLAYED = (b"idempotent-replayed", b"true")
# How long a request goes on after its client has left, which may be about to send it again.
GRACE_S = 20.0
# Hashing that many bytes takes longer than the event loop should stand still.
MUCH_BYTES = 512 << 10
# Drawn boundaries are longer: 16 characters of curl, 32 of httpx, 34 of browsers.
LEAST_BOUNDARY = 16
# The first parts of the paths that generate or store something.
PATHS = (
    ("v1", "chat", "completions"), ("v1", "completions"), ("v1", "responses"), ("v1", "conversations"),
    ("v1", "messages"), ("v1", "embeddings"), ("v1", "rerank"), ("v1", "audio"), ("v1", "files"),
    ("v1", "batches"), ("v1", "feedback"), ("api", "chat"), ("api", "generate"), ("api", "embed"),
)  # fmt: skip


class Idempotency:
    """The layer. Event loop's thread only."""

    def __init__(
        self, app: ASGIApp, remembered: RememberedAnswers, grace_s: float = GRACE_S
    ) -> None:
        self._app = app
        self._remembered = remembered
        self._grace_s = grace_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        http = cast(HTTPScope, scope)
        if kind != "http" or http["method"] != "POST" or not _applies(http):
            await self._app(scope, receive, send)
            return
        try:
            key = key_of(http)
            attempt = await self._attempt(http, key, receive)
        except Exception as exc:
            await send_whole(send, *encoded(translate(exc), http))
            return
        if attempt is None:  # the client has left
            return
        if (answer := self._remembered.answer(attempt)) is not None:
            await send_whole(send, answer.status, [*answer.headers, REPLAYED], answer.body)
            return
        await self._do(attempt, scope, receive, send)

    async def _attempt(self, scope: HTTPScope, key: str, receive: Receive) -> Attempt | None:
        """An answered attempt, or a new one, which is to be done; None when the client leaves meanwhile.

        Raises: IdempotencyKeyReused, RateLimited.
        """
        context = context_of(scope)
        owner, digest = context.known_caller.owner, await digest_of(scope)
        while (attempt := self._remembered.find(owner, key, digest)) is not None:
            if attempt.ended.is_set():
                return attempt
            attempt.n_waiting += 1
            try:
                ending = await run_until_gone(
                    _wait(attempt), receive, name="idempotency-wait", shutdown=context.shutdown
                )
            finally:
                attempt.n_waiting -= 1
            if ending != "done":
                return None
        return self._remembered.begin(owner, key, digest)

    async def _do(self, attempt: Attempt, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the request, and keep its answer if it has no error."""
        recorder = _Recorder(send)
        context_of(scope).is_recorded = True
        answer: WholeAnswer | None = None
        try:
            await self._app(scope, self._patient(attempt, receive), recorder)
            if context_of(scope).error is None:
                answer = recorder.answer
        finally:
            self._remembered.end(attempt, answer)

    def _patient(self, attempt: Attempt, receive: Receive) -> Receive:
        """`receive`, which tells that the client has left after a while, unless others wait by then."""

        async def received() -> ReceiveMessage:
            message = await receive()
            if message["type"] == "http.disconnect":
                await asyncio.sleep(self._grace_s)
                if attempt.n_waiting:
                    await attempt.ended.wait()
            return message

        return cast(Receive, received)


class _Recorder:
    """`send` that keeps what it sends, within bounds."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._is_over = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            if len(self._body) <= MAX_ANSWER_BYTES:
                self._body += message["body"]
            self._is_over = not message.get("more_body", False)
        await self._send(message)

    @property
    def answer(self) -> WholeAnswer | None:
        """The whole response if it is a success that fits."""
        fits = self._is_over and len(self._body) <= MAX_ANSWER_BYTES
        if not fits or not 200 <= self._status < 300:
            return None
        return WholeAnswer(self._status, self._headers, bytes(self._body))


async def _wait(attempt: Attempt) -> None:
    await attempt.ended.wait()


def _applies(scope: HTTPScope) -> bool:
    if all(name != HEADER for name, _ in scope["headers"]):
        return False
    wanted = tuple(parts(scope["path"]))
    return any(wanted[: len(path)] == path for path in PATHS)


def key_of(scope: HTTPScope) -> str:
    """Raises: BadRequest unless there is one printable key of a reasonable length."""
    keys = [value.decode("latin-1") for name, value in scope["headers"] if name == HEADER]
    if len(keys) != 1 or not (0 < len(keys[0]) <= MAX_KEY and keys[0].isprintable()):
        raise BadRequest(
            f"Idempotency-Key needs one value of 1 to {MAX_KEY} printable characters: send a UUID."
        )
    return keys[0]


async def digest_of(scope: HTTPScope) -> bytes:
    """What makes two requests the same: API key, path, query and body. Other keys of an owner may have
    other scopes and tools, and are not given the answers of this one."""
    body = context_of(scope).body
    boundary = _boundary(scope)
    if body is not None and body.n_received > MUCH_BYTES:
        return await asyncio.to_thread(_digest, scope, body, boundary)
    return _digest(scope, body, boundary)


def _digest(scope: HTTPScope, body: Body | None, boundary: bytes) -> bytes:
    data = body.received if body is not None else b""
    found = hashlib.sha256()
    key_id = context_of(scope).known_caller.key_id
    for part in (key_id.encode(), scope["path"].encode(), scope["query_string"]):
        found.update(len(part).to_bytes(4, "big") + part)
    found.update(data.replace(b"--" + boundary, b"--") if boundary else data)
    return found.digest()


def _boundary(scope: HTTPScope) -> bytes:
    """The boundary of a form, which a client draws anew each time; none if it is shorter than those that are
    drawn, which would be found all over the content."""
    for name, value in scope["headers"]:
        if name == b"content-type" and b"boundary=" in value:
            found = value.partition(b"boundary=")[2].partition(b";")[0].strip(b' "')
            return found if len(found) >= LEAST_BOUNDARY else b""
    return b""
