"""Live sessions: their place on the worker, whoever leaves and whenever."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from edgeagent.api.openai.realtime import Conversation
from edgeagent.api.openai.realtime_writer import RealtimeWriter
from edgeagent.errors import Erased, Interrupted, RateLimited, Unauthorized
from edgeagent.routing.decision import Decision
from edgeagent.serving import live_transcription
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.live_transcription import MAX_AHEAD_S, LiveSession, LiveTranscriptions
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings import Settings
from edgeagent.settings.speech import LiveSettings, SpeechSettings
from edgeagent.speech.client import LiveStream
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import Consumed, LiveAudio, TurnBegan
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import ALL_SCOPES, Caller
from tests.serving.fakes import FakeEngines

ORIGIN = RequestOrigin("/v1/realtime", "req_1", "ann", "key_1")
OPTIONS = LiveOptions()
MUCH = bytes(int((MAX_AHEAD_S + 1) * OPTIONS.bytes_per_s))


class FakeWorker:
    """A speech worker that notes what it is sent and looks at nothing."""

    def __init__(self) -> None:
        self.streams: list[LiveStream] = []
        self.told: list[Any] = []

    def listen(self, options: LiveOptions) -> LiveStream:
        self.streams.append(LiveStream(len(self.streams), lambda request_id: None))
        return self.streams[-1]

    def tell(self, message: Any) -> None:
        self.told.append(message)


class SpeechEngines(FakeEngines):
    def __init__(self) -> None:
        super().__init__()
        self.worker = FakeWorker()
        self.has_started = asyncio.Event()
        self.has_started.set()

    @asynccontextmanager
    async def lease_worker(
        self, model_id: str, kind: Any, *, give_way: asyncio.Event | None = None
    ) -> AsyncIterator[Any]:
        await self.has_started.wait()
        self.n_leased += 1
        try:
            yield self.worker
        finally:
            self.n_leased -= 1


@pytest.fixture
async def engines() -> SpeechEngines:
    return SpeechEngines()


def session_of(engines: Any) -> LiveSession:
    return LiveSession(
        ORIGIN, Decision("whisper", "named"), OPTIONS, engines, Settings().speech.live
    )


async def until(is_so: Any) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0)


async def test_audio_that_waits_for_room_goes_on_once_the_worker_has_looked(engines):
    session = session_of(engines)
    await session.append(MUCH)
    waiting = asyncio.create_task(session.append(b"\0\0"))
    await until(lambda: waiting._state == "PENDING" and not session._has_room.is_set())
    engines.worker.streams[0].put(Consumed(0, len(MUCH)))
    await waiting
    assert [len(one.data) for one in engines.worker.told if isinstance(one, LiveAudio)] == [
        len(MUCH),
        2,
    ]
    await session.close()
    assert engines.n_leased == 0


async def test_audio_that_waits_for_room_opens_no_stream_behind_the_end(engines):
    session = session_of(engines)
    await session.append(MUCH)
    waiting = asyncio.create_task(session.append(MUCH))
    await asyncio.sleep(0)
    await session.close()
    with pytest.raises(Interrupted):
        await waiting
    assert engines.n_leased == 0
    assert len(engines.worker.streams) == 1


async def test_a_worker_that_starts_while_the_session_ends_is_given_back(engines):
    engines.has_started.clear()
    session = session_of(engines)
    waiting = asyncio.create_task(session.append(MUCH))
    await asyncio.sleep(0)
    await session.close()
    engines.has_started.set()
    with pytest.raises(Interrupted):
        await waiting
    assert engines.n_leased == 0


async def test_a_reader_that_breaks_gives_the_worker_back_and_says_so(engines):
    session = session_of(engines)
    await session.append(b"\0\0")
    engines.worker.streams[0].put(Consumed(0, None))  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        assert await session.take()
    await session.close()
    assert engines.n_leased == 0


class GoneSocket:
    """A client that sends much, and cannot be sent anything once it has left."""

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages
        self.has_left = False
        self.sent: list[Any] = []
        self.closed: tuple[int, str] | None = None

    async def close(self, code: int, reason: str) -> None:
        self.closed = code, reason

    async def send_data(self, text: str, **options: Any) -> None:
        if self.has_left:
            raise BrokenPipeError
        self.sent.append(json.loads(text))

    async def receive(self) -> Any:
        if not self._messages:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "text": self._messages.pop(0)}


async def test_a_client_that_leaves_while_its_audio_waits_leaves_nothing(engines):
    piece = json.dumps(
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(MUCH).decode()}
    )
    socket = GoneSocket([piece] * 3)
    before = asyncio.all_tasks()
    session = session_of(engines)
    talk = Conversation(
        socket, session, None, Settings(), RealtimeWriter()  # type: ignore[arg-type]
    )  # fmt: skip
    running = asyncio.create_task(talk.run())
    await until(lambda: len(socket._messages) == 1)
    socket.has_left = True
    engines.worker.streams[0].put(TurnBegan(0, 1.0))
    async with asyncio.timeout(60):
        await running
    await session.close()
    for task in asyncio.all_tasks() - before - {running}:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        pytest.fail(f"{task.get_name()} goes on")
    assert engines.n_leased == 0
    assert len(engines.worker.streams) == 1


ANN = Caller(key_id="key_1", owner="ann", scopes=ALL_SCOPES)


class Sessions:
    """Live sessions whose keys a test revokes."""

    def __init__(self, engines: Any) -> None:
        self.callers: dict[str, Caller] = {"key_1": ANN}
        self.quota = AudioQuota(self._past)
        self.live = LiveTranscriptions(
            engines, Settings().speech.live, self.quota, self.callers.get
        )

    async def _past(self, key_id: str) -> list[tuple[float, float]]:
        return []


async def test_a_session_ends_with_its_key(engines, monkeypatch):
    monkeypatch.setattr(live_transcription, "KEY_CHECK_S", 0.01)
    sessions = Sessions(engines)
    socket = GoneSocket([])
    async with sessions.live.open(ORIGIN, Decision("whisper", "named"), OPTIONS) as session:
        await session.append(b"\0\0")
        talk = Conversation(
            socket, session, None, Settings(), RealtimeWriter()  # type: ignore[arg-type]
        )  # fmt: skip
        running = asyncio.create_task(talk.run())
        await until(lambda: socket.sent)
        sessions.callers.clear()
        async with asyncio.timeout(60):
            await running
        assert socket.sent[-1]["error"]["code"] == "invalid_api_key"
        assert socket.closed == (1008, "invalid_api_key")
        assert engines.n_leased == 0
        with pytest.raises(Unauthorized):
            await session.append(b"\0\0")


async def test_sessions_end_with_the_erasure_of_their_owner_only(engines):
    sessions = Sessions(engines)
    async with sessions.live.open(ORIGIN, Decision("whisper", "named"), OPTIONS) as session:
        await sessions.live.forget(DeletedContent.erased(Selector(owner="bob")))
        await sessions.live.forget(DeletedContent.erased(Selector(owner="ann", subject="s")))
        await session.append(b"\0\0")
        assert engines.n_leased == 1
        await sessions.live.forget(DeletedContent.erased(Selector(owner="ann")))
        with pytest.raises(Erased):
            await session.take()
        assert engines.n_leased == 0
    assert engines.rows == [], "a row would come after the erasure"


class ChattySocket(GoneSocket):
    """A client that sends events and no audio, for ever."""

    async def receive(self) -> Any:
        await asyncio.sleep(0.005)
        return {"type": "websocket.receive", "text": '{"type": "input_audio_buffer.commit"}'}


async def test_events_without_audio_keep_no_session_open(engines):
    settings = Settings(speech=SpeechSettings(live=LiveSettings(idle_timeout_s=0.1)))
    socket = ChattySocket([])
    session = session_of(engines)
    talk = Conversation(
        socket, session, None, settings, RealtimeWriter()  # type: ignore[arg-type]
    )  # fmt: skip
    async with asyncio.timeout(30):
        await talk.run()
    assert socket.closed == (1000, "idle for 0.1 s")
    await session.close()


async def test_a_session_ends_where_its_key_has_had_its_audio_of_a_day(engines, monkeypatch):
    monkeypatch.setattr(live_transcription, "KEY_CHECK_S", 0.01)
    sessions = Sessions(engines)
    origin = replace(ORIGIN, audio_s_per_day=90.0)
    minute = bytes(int(61 * OPTIONS.bytes_per_s))
    async with sessions.live.open(origin, Decision("whisper", "named"), OPTIONS) as session:
        await session.append(minute)
        engines.worker.streams[0].put(Consumed(0, len(minute)))
        await until(lambda: session.counted_s > 0)
        await sessions.quota.check("key_1", 90.0)
        await session.append(minute)
        with pytest.raises(RateLimited):
            async with asyncio.timeout(60):
                await session.take()
        assert session.counted_s == session.audio_s == pytest.approx(122)
    with pytest.raises(RateLimited):
        await sessions.quota.check("key_1", 90.0)
    await sessions.quota.check("key_1", 125.0)
