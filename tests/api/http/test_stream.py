"""When an answer is logged, and that this happens once."""

from __future__ import annotations

import asyncio

import pytest

from edgeagent.api.http.stream import AnswerResponse
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import TokenChunk
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from tests.serving.fakes import ORIGIN, FakeEngines, said

SPEC = GenerateSpec(prompts=[Prompt(messages=[{"role": "user", "content": "x"}])])


class TextWriter:
    """Sends the text as it is."""

    content_type = b"text/plain"
    ping = None

    def __init__(self) -> None:
        self._texts: list[str] = []

    def decided(self, decision) -> None:
        raise AssertionError("nobody chooses another model here")

    def opening(self, facts) -> bytes:
        return b""

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return "".join(chunk.text for chunk in chunks).encode()

    def last_events(self, answer: Answer) -> bytes:
        return b"END"

    def error_events(self, error) -> bytes:
        return f"ERROR {error.code}".encode()

    def collect(self, chunks: list[TokenChunk]) -> None:
        self._texts += [chunk.text for chunk in chunks]

    def whole(self, answer: Answer) -> bytes:
        return "".join(self._texts).encode()


async def sent(engines: FakeEngines, *, is_stream: bool, keep=None):
    """What was sent, each message with the number of rows that were logged before it."""
    messages: list[tuple[bytes, bool, int]] = []

    async def send(message) -> None:
        messages.append(
            (message.get("body", b""), message.get("more_body", True), len(engines.rows))
        )

    async def receive():
        await asyncio.Event().wait()

    response = AnswerResponse(
        Answer(ORIGIN, Decision("big", "default"), SPEC, engines),
        TextWriter(),
        keep=keep,
        is_stream=is_stream,
        ping_interval_s=10.0,
        write_timeout_s=10.0,
    )
    scope = {"type": "http", "path": "/v1/chat/completions", "headers": []}
    await response(scope, receive, send)
    return messages


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_complete_answer_is_logged_before_its_last_byte_and_once(is_stream: bool):
    """Its client may rate it at once."""
    engines = FakeEngines(big=lambda spec: said("Good day"))
    messages = await sent(engines, is_stream=is_stream)
    assert b"Good day" in b"".join(body for body, _, _ in messages)
    assert messages[-1][1:] == (False, 1)
    assert [row.status for row in engines.rows] == [200] and engines.n_leased == 0


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_answer_that_could_not_be_kept_is_logged_as_failed(is_stream: bool):
    async def fail() -> None:
        raise RuntimeError("the disk is gone")

    engines = FakeEngines(big=lambda spec: said("Good day"))
    messages = await sent(engines, is_stream=is_stream, keep=fail)
    assert b"internal" in messages[-1][0]
    assert [row.status for row in engines.rows] == [500]


async def test_an_answer_that_the_engine_does_not_finish_is_logged_when_it_is_released():
    engines = FakeEngines(big=lambda spec: [TokenChunk(0, "Good ")])
    messages = await sent(engines, is_stream=True)
    assert messages[-1] == (b"END", False, 0)
    assert len(engines.rows) == 1
