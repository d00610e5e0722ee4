"""When an answer is logged, and that this happens once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from edgeagent.api.http.request_context import KEY, RequestContext
from edgeagent.api.http.stream import AnswerResponse
from edgeagent.api.openai.chat import ChatWriter
from edgeagent.engine.client import Generation
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import CallDelta, TokenChunk, TokenLogprob, TopLogprob
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from tests.serving.fakes import ORIGIN, USAGE, FakeEngines, said

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


# --- chunks that are sent past the response's task

CHUNKS = [
    TokenChunk(0, "Gr"),
    TokenChunk(0, 'ü\u00df "\\\n\t\x01\u2028</script> \U0001f600'),
    TokenChunk(1, "other"),
    TokenChunk(0, "x", logprobs=[TokenLogprob(b"x", -0.5, [TopLogprob(b"\xc3", -1.0)])]),
    TokenChunk(0, "", reasoning="hm"),
    TokenChunk(0, "", calls=[CallDelta(0, "{", "get")]),
    TokenChunk(1, "end", "stop", USAGE),
    TokenChunk(0, "", calls=[CallDelta(0, "}")]),
    TokenChunk(0, "", "tool_calls", USAGE),
]


class Connection:
    """What a sender asks of a connection; `n_unread` writes after it begins, the client stops reading."""

    def __init__(self, out: list[bytes], n_read: int) -> None:
        self._out = out
        self._n_left = n_read
        self.n_direct = 0
        self.is_reading = True

    @property
    def takes_chunks(self) -> bool:
        return self._n_left > 0

    def write_chunk(self, data: bytes) -> None:
        assert data
        self._n_left -= 1
        self.n_direct += 1
        self._out.append(data)


async def streamed(
    connection_of, *, is_recorded: bool = False, together: int = 1
) -> tuple[bytes, list[bytes], Connection | None]:
    """The body of a stream whose engine sends `together` chunks at once, what was collected, and the
    connection."""
    out: list[bytes] = []
    engines = FakeEngines(big=lambda spec: [])
    generation = Generation(SimpleNamespace(cancel=lambda request_id: None), 1, 2)  # type: ignore[arg-type]
    engines.clients["big"].generate = lambda spec: generation  # type: ignore[method-assign]
    connection = connection_of(out)
    spec = GenerateSpec(prompts=SPEC.prompts, n=2)
    writer = ChatWriter(Decision("big", "default"), wants_usage=False)
    writer.head |= {"id": "chatcmpl-1", "created": 1}
    writer._before = writer._opening()
    writer.calls.id_of = lambda index, call: f"call_{index}_{call}"  # type: ignore[method-assign]
    kept: list[bytes] = []

    async def keep() -> None:
        kept.extend(writer.text(index).encode() for index in range(2))

    async def send(message) -> None:
        out.append(message.get("body", b""))

    async def receive():
        await asyncio.Event().wait()

    response = AnswerResponse(
        Answer(ORIGIN, Decision("big", "default"), spec, engines), writer, keep=keep,
        is_stream=True, ping_interval_s=10.0, write_timeout_s=10.0,
    )  # fmt: skip
    context = RequestContext(connection=connection, is_recorded=is_recorded)
    scope = {"type": "http", "path": "/v1/chat/completions", "headers": [], "state": {KEY: context}}
    task = asyncio.create_task(response(scope, receive, send))
    for i in range(0, len(CHUNKS), together):
        for _ in range(20):
            await asyncio.sleep(0)
        for chunk in CHUNKS[i : i + together]:
            generation.put(chunk)
    await asyncio.wait_for(task, 10)
    return b"".join(out), kept, connection


@pytest.mark.parametrize(
    ("n_read", "is_recorded", "together", "n_direct"),
    [(99, False, 1, 4), (2, False, 1, 2), (0, False, 1, 0), (99, True, 1, 0), (99, False, 2, 3)],
)
async def test_chunks_sent_past_the_task_are_the_same_bytes_in_the_same_order(
    n_read: int, is_recorded: bool, together: int, n_direct: int
):
    plain, plain_kept, _ = await streamed(lambda out: None)
    got, kept, connection = await streamed(
        lambda out: Connection(out, n_read), is_recorded=is_recorded, together=together
    )
    assert got == plain and kept == plain_kept and b"tool_calls" in got
    assert connection is not None and connection.n_direct == n_direct
