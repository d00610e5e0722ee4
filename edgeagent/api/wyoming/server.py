"""Wyoming over TCP: speech to text for Home Assistant.

    describe                                  -> info
    transcribe, audio-start, audio-chunk ...  -> transcript-start, transcript-chunk ...
    audio-stop                                -> transcript, transcript-stop

The protocol has no keys: the server listens on loopback only, and its sessions are those of the machine's
owner. They count among the live sessions of the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack, suppress
from typing import Any

from edgeagent.api.http.errors import translate
from edgeagent.api.wyoming.client_options import live_options, speech_options
from edgeagent.api.wyoming.framing import MAX_LINE_BYTES, WyomingEvent, encoded, read_event
from edgeagent.errors import BadRequest, EdgeAgentError, InvalidParameter, Unavailable
from edgeagent.serving.audio_deadline import AudioDeadline
from edgeagent.serving.live_events import Completed, Delta, Failed, Refused
from edgeagent.serving.live_transcription import LiveSession, LiveTranscriptions
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.transcription import TranscriptionService
from edgeagent.settings.speech import WyomingSettings
from edgeagent.speech.options import SpeechOptions
from edgeagent.types.caller import LOCAL
from edgeagent.types.ids import new_id
from edgeagent.types.version import VERSION

logger = logging.getLogger(__name__)

ENDPOINT = "wyoming"
UNREAD_BYTES = 64 << 10
LINGER_S = 1.0


class WyomingServer:
    """Accepts connections on a bound socket. Event loop's thread only; `close()` may be called twice."""

    def __init__(
        self,
        sock: socket.socket,
        settings: WyomingSettings,
        live: LiveTranscriptions,
        transcriptions: TranscriptionService,
    ) -> None:
        self._socket = sock
        self._settings = settings
        self._live = live
        self._transcriptions = transcriptions
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, sock=self._socket, limit=MAX_LINE_BYTES
        )
        logger.info("wyoming_listening port=%s", self._socket.getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= 2 * self._settings.max_connections:  # those told so are still here
            writer.transport.abort()
            return
        connection = WyomingConnection(
            reader, writer, self._settings, self._live, self._transcriptions
        )
        is_full = len(self._tasks) >= self._settings.max_connections
        task = asyncio.create_task(connection.run(is_full=is_full), name="wyoming")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class WyomingConnection:
    """One client: any number of transcriptions, one after another."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: WyomingSettings,
        live: LiveTranscriptions,
        transcriptions: TranscriptionService,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._live = live
        self._transcriptions = transcriptions
        self._stack = AsyncExitStack()
        self._session: LiveSession | None = None
        self._telling: asyncio.Task[None] | None = None
        self._model: str | None = None
        self._speech = SpeechOptions()
        self._deadline = AudioDeadline(settings.timeout_s, asyncio.get_running_loop().time)

    async def run(self, *, is_full: bool) -> None:
        """Serve until the client leaves, is silent for long, or sends what is none of the protocol."""
        self._writer.transport.set_write_buffer_limits(high=UNREAD_BYTES)
        try:
            if is_full:
                raise Unavailable(
                    f"{self._settings.max_connections} clients are connected, which is all that "
                    "speech.wyoming.max_connections allows: try again later."
                )
            while (event := await self._next()) is not None:
                await self._handle(event)
        except (TimeoutError, ConnectionError):
            logger.debug("wyoming_connection_lost")
        except Exception as exc:
            await self._fail(translate(exc))
        finally:
            await self._end()
            self._writer.close()
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(self._settings.timeout_s):
                    await self._writer.wait_closed()

    async def _next(self) -> WyomingEvent | None:
        """The next event. Raises: TimeoutError where none comes, or a session gets no audio."""
        audio_s = self._session.audio_s if self._session is not None else None
        async with asyncio.timeout_at(self._deadline.at_s(audio_s)):
            return await read_event(self._reader)

    async def _handle(self, event: WyomingEvent) -> None:
        """Events that are not known are ignored, as the protocol wants it."""
        match event.type:
            case "describe":
                await self._send("info", await self._info())
            case "ping":
                await self._send("pong", {"text": str(event.data.get("text", ""))[:200]})
            case "transcribe":
                name = event.data.get("name")
                self._model = name if isinstance(name, str) and name else None
                self._speech = speech_options(event.data)
            case "audio-start":
                await self._begin(event.data)
            case "audio-chunk":
                if self._session is None:
                    await self._begin(event.data)
                assert self._session is not None, "it has begun"
                await self._session.append(event.payload)
            case "audio-stop":
                await self._finish()

    # --- one transcription

    async def _begin(self, data: dict[str, Any]) -> None:
        await self._end()
        options = live_options(self._speech, data)
        decision = await self._transcriptions.model_for(self._model)
        origin = RequestOrigin(ENDPOINT, new_id("req"), LOCAL.owner, LOCAL.key_id)
        opened = self._live.open(origin, decision, options)
        self._session = await self._stack.enter_async_context(opened)
        self._telling = asyncio.create_task(self._tell(self._session), name="wyoming-events")

    async def _tell(self, session: LiveSession) -> None:
        """Send text as it becomes final, until the item is complete. Raises: EdgeAgentError."""
        has_started = False
        while True:
            for event in await session.take():
                if not has_started and isinstance(event, Delta | Completed):
                    has_started = True
                    await self._send("transcript-start", self._language(session))
                match event:
                    case Delta(_, text):
                        await self._send("transcript-chunk", {"text": text})
                    case Completed(_, text):
                        whole = {"text": text.strip()} | self._language(session)
                        await self._send("transcript", whole)
                        await self._send("transcript-stop")
                        return
                    case Failed(_, error) | Refused(error):
                        raise error

    @staticmethod
    def _language(session: LiveSession) -> dict[str, Any]:
        language = session.options.speech.language
        return {"language": language} if language else {}

    async def _finish(self) -> None:
        """What was said until now is all. Raises: EdgeAgentError."""
        session, telling = self._session, self._telling
        if session is None or telling is None:
            raise BadRequest("The audio stops before it starts: send audio-start and audio-chunk.")
        try:
            await session.commit()
        except InvalidParameter:  # too little to be anything
            await self._send("transcript", {"text": ""})
        else:
            await telling
        await self._end()

    async def _end(self) -> None:
        telling, self._telling = self._telling, None
        self._session = None
        if telling is not None:
            telling.cancel()
        stack, self._stack = self._stack, AsyncExitStack()
        try:
            if telling is not None:
                await asyncio.gather(telling, return_exceptions=True)
        finally:
            await stack.aclose()

    # --- sending

    async def _send(self, kind: str, data: dict[str, Any] | None = None) -> None:
        self._writer.write(encoded(kind, data))
        async with asyncio.timeout(self._settings.timeout_s):
            await self._writer.drain()

    async def _fail(self, error: EdgeAgentError) -> None:
        """The client is told; what it sends next could not be understood, so that this is the end.

        What it still sends is read for a moment, so that it sees the error and no reset.
        """
        with suppress(ConnectionError, TimeoutError):
            await self._send("error", {"text": error.message, "code": error.code})
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                while await self._reader.read(UNREAD_BYTES):
                    pass

    async def _info(self) -> dict[str, Any]:
        made = {"name": "SYSTRAN", "url": "https://github.com/SYSTRAN/faster-whisper"}
        models = [
            {
                "name": name, "attribution": {"name": "OpenAI", "url": "https://github.com/openai/whisper"},
                "installed": True, "description": name, "version": None, "languages": list(languages),
            }
            for name, languages in await self._transcriptions.models()
        ]  # fmt: skip
        program = {
            "name": "edgeagent", "attribution": made, "installed": True,
            "description": "Whisper on this device", "version": VERSION, "models": models,
            "supports_transcript_streaming": True,
        }  # fmt: skip
        return {"asr": [program]}
