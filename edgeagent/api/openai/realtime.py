"""`/v1/realtime?intent=transcription`: a WebSocket for live transcription, as OpenAI's realtime sessions.

A bad event is answered with an `error` event and ends nothing. The session ends when its client leaves, says
nothing for long, or does not read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import msgspec
from litestar import WebSocket, get, websocket
from litestar.exceptions import WebSocketDisconnect

from edgeagent.api.http.errors import translate
from edgeagent.api.http.request_context import context_of
from edgeagent.api.openai.realtime_writer import RealtimeWriter
from edgeagent.api.openai.schemas.realtime import OldSessionBody, SessionBody, changed
from edgeagent.errors import BadRequest, EdgeAgentError, InvalidParameter, UnsupportedParameter
from edgeagent.serving.audio_deadline import AudioDeadline
from edgeagent.serving.live_transcription import LiveSession, LiveTranscriptions
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.transcription import TranscriptionService
from edgeagent.settings import Settings
from edgeagent.speech.live_options import LiveOptions

PATH = "/v1/realtime"
PROTOCOL = "realtime"
NORMAL, POLICY = 1000, 1008
# Models that talk; their names say nothing about who transcribes.
TALKING = ("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime")

# What sending raises once the client has left.
GONE = (OSError, WebSocketDisconnect)

Socket = WebSocket[Any, Any, Any]


@get(
    PATH,
    operation_id="realtime",
    summary="Transcribe speech as it is said (WebSocket)",
    description=(
        "A WebSocket, `/v1/realtime?intent=transcription`, with the events of OpenAI's transcription "
        "sessions: session.update and input_audio_buffer.append, .commit and .clear from the client; turns, "
        "deltas that never change, segments and completed items with usage from the server. Without a "
        "WebSocket it is a 400."
    ),
    tags=["audio"],
)
async def explain_realtime() -> None:
    """Raises: BadRequest, for everybody who comes without a WebSocket."""
    raise BadRequest(
        f"{PATH} is a WebSocket: connect to ws://.../v1/realtime?intent=transcription."
    )


@websocket(PATH)
async def realtime(
    socket: Socket,
    live_transcriptions: LiveTranscriptions,
    transcriptions: TranscriptionService,
    settings: Settings,
) -> None:
    # Imported with the first one: it brings a library that most daemons never use.
    from edgeagent.api.http.websocket import refuse_socket

    context = context_of(socket.scope)
    caller = context.known_caller
    origin = RequestOrigin(
        PATH, context.request_id, caller.owner, caller.key_id, caller.tools,
        audio_s_per_day=caller.limits.audio_seconds_per_day,
    )  # fmt: skip
    is_open = False
    try:
        decision = await transcriptions.model_for(_model_of(socket))
        async with live_transcriptions.open(origin, decision, _OPTIONS) as session:
            is_open = True
            await socket.accept(subprotocols=_subprotocol(socket.scope.get("subprotocols", [])))
            is_old = socket.headers.get("openai-beta", "").startswith("realtime=")
            conversation = Conversation(
                socket, session, transcriptions, settings, RealtimeWriter(is_old=is_old)
            )
            await conversation.run()
    except Exception as exc:
        if is_open:
            raise
        await refuse_socket(translate(exc), socket.scope, socket.send)


_OPTIONS = LiveOptions()


def _model_of(socket: Socket) -> str | None:
    """Raises: UnsupportedParameter for a session that is to talk."""
    intent = socket.query_params.get("intent")
    if intent not in (None, "transcription"):
        raise UnsupportedParameter(
            f"`intent` is {str(intent)[:40]!r}, this server transcribes: use intent=transcription.",
            param="intent",
        )
    model = socket.query_params.get("model")
    return None if not model or str(model).startswith(TALKING) else str(model)


def _subprotocol(offered: list[str]) -> str | None:
    """The one of those offered that is spoken here. Never the one with the key."""
    return PROTOCOL if PROTOCOL in offered else None


class Conversation:
    """One session's two directions. Ends with either."""

    def __init__(
        self,
        socket: Socket,
        session: LiveSession,
        transcriptions: TranscriptionService,
        settings: Settings,
        writer: RealtimeWriter,
    ) -> None:
        self._socket = socket
        self._session = session
        self._transcriptions = transcriptions
        self._idle_timeout_s = settings.speech.live.idle_timeout_s
        self._writer = writer
        self._model = session.decision.model_id  # as the client calls it

    async def run(self) -> None:
        await self._send(self._writer.session("created", self._session.options, self._model))
        tasks = [
            asyncio.create_task(self._tell(), name="live-events"),
            asyncio.create_task(self._hear(), name="live-input"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Both, before either is awaited: an input that goes on would ask for another worker.
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, GONE):
                raise end

    async def _send(self, text: str) -> None:
        await self._socket.send_data(text, mode="text", encoding="utf-8")

    async def _tell(self) -> None:
        while True:
            try:
                events = await self._session.take()
            except (
                EdgeAgentError
            ) as exc:  # the session was ended: its key is revoked, its owner erased
                await self._send(self._writer.error(exc))
                await self._socket.close(POLICY, reason=exc.code)
                return
            for event in events:
                await self._send(self._writer.event(event))

    async def _hear(self) -> None:
        deadline = AudioDeadline(self._idle_timeout_s, asyncio.get_running_loop().time)
        while True:
            try:
                async with asyncio.timeout_at(deadline.at_s(self._session.audio_s)):
                    message = await self._socket.receive()
            except TimeoutError:
                await self._socket.close(NORMAL, reason=f"idle for {self._idle_timeout_s:g} s")
                return
            if message["type"] == "websocket.disconnect":
                return
            event_id = None
            try:
                event = _event_of(message)
                event_id = _event_id(event)
                await self._handle(event)
            except Exception as exc:  # whatever it is, it is said and the session goes on
                await self._send(self._writer.error(translate(exc), event_id))

    async def _handle(self, event: dict[str, Any]) -> None:
        session = self._session
        match event.get("type"):
            case "input_audio_buffer.append":
                await session.append(_audio_of(event))
            case "input_audio_buffer.commit":
                await session.commit()
            case "input_audio_buffer.clear":
                await session.clear()
            case "session.update":
                await self._update(SessionBody.model_validate(_session_of(event)), is_old=False)
            case "transcription_session.update":
                body = OldSessionBody.model_validate(event.get("session"))
                await self._update(body.today(), is_old=True)
            case other:
                raise _unknown(other)

    async def _update(self, body: SessionBody, *, is_old: bool) -> None:
        given = body.audio.input.transcription
        options = changed(self._session.options, body)
        if given is not None and given.model is not None:
            self._session.choose(await self._transcriptions.model_for(given.model))
            self._model = given.model
        await self._session.change(options)
        await self._send(self._writer.session("updated", options, self._model, is_old=is_old))


def _event_of(message: Any) -> dict[str, Any]:
    """Raises: BadRequest."""
    text = message.get("text")
    if text is None:
        raise BadRequest("This message is binary: send events as JSON, audio as base64 in them.")
    try:
        event = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadRequest(f"This message is no JSON ({exc}): send one event in each.") from exc
    if not isinstance(event, dict):
        raise BadRequest("This message is no JSON object: send one event in each.")
    return event


def _event_id(event: dict[str, Any]) -> str | None:
    given = event.get("event_id")
    return given[:512] if isinstance(given, str) else None


def _audio_of(event: dict[str, Any]) -> bytes:
    """Raises: InvalidParameter."""
    audio = event.get("audio")
    if not isinstance(audio, str):
        raise InvalidParameter("`audio` is missing: send samples in base64.", param="audio")
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidParameter(
            f"`audio` is no base64 ({exc}): send samples in base64, with padding.", param="audio"
        ) from exc


def _session_of(event: dict[str, Any]) -> Any:
    """Raises: UnsupportedParameter for a session that is to talk."""
    session = event.get("session")
    if isinstance(session, dict) and session.get("type") == "realtime":
        raise UnsupportedParameter(
            "This server transcribes and does not talk: use `session.type` transcription.",
            param="session.type",
        )
    return session


def _unknown(kind: object) -> EdgeAgentError:
    if not isinstance(kind, str):
        return InvalidParameter("`type` is missing: name the event.", param="type")
    return InvalidParameter(
        f"Events of type {kind[:80]!r} are not known here: a transcription has session.update and "
        "input_audio_buffer.append, .commit and .clear.",
        param="type",
    )


HANDLERS = (explain_realtime,)
SOCKETS = (realtime,)
