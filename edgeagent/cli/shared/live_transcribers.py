"""Who hears live speech for a command: the running daemon, or a worker of its own."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

import websockets
from websockets.asyncio.client import ClientConnection, connect

from edgeagent.cli.shared.audio_source import RATE_HZ
from edgeagent.cli.shared.daemon import authorization, refusal_of
from edgeagent.cli.shared.speech_worker import LOAD_TIMEOUT_S, speech_config
from edgeagent.device.configuration import Configuration
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.live_events import (
    Cleared,
    Completed,
    Delta,
    Failed,
    Refused,
    SpeechStarted,
)
from edgeagent.serving.live_items import LiveItems
from edgeagent.speech.client import LiveStream, SpeechClient
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import Consumed, DropItem, EndItem, LiveAudio
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Finished

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_KINDS: dict[str, Literal["began", "text", "ended", "cleared"]] = {
    "input_audio_buffer.speech_started": "began",
    f"{_TRANSCRIPTION}.delta": "text",
    f"{_TRANSCRIPTION}.completed": "ended",
    "input_audio_buffer.cleared": "cleared",
}
MAX_AHEAD_BYTES = 10 * 2 * RATE_HZ


class Told(NamedTuple):
    """A turn that began, more of its text, its end; or the answer to `finish`."""

    what: Literal["began", "text", "ended", "cleared"]
    text: str = ""


class DaemonListener:
    """A session of the running daemon."""

    def __init__(self, url: str, model: str | None, options: SpeechOptions) -> None:
        self._url = url.replace("http", "ws", 1) + "/v1/realtime?intent=transcription"
        self._model = model
        self._options = options
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> DaemonListener:
        """Raises: EdgeAgentError with the daemon's message."""
        try:
            self._socket = await connect(
                self._url, additional_headers=authorization(), max_size=None, proxy=None,
                compression=None,
            )  # fmt: skip
        except websockets.InvalidStatus as exc:
            status, body = exc.response.status_code, exc.response.body
            raise refusal_of(status, bytes(body)) from exc
        options = self._options
        transcription: dict[str, Any] = {
            "language": options.language, "prompt": options.prompt, "keywords": list(options.keywords),
        }  # fmt: skip
        if self._model:
            transcription["model"] = self._model
        form = {"type": "audio/pcm", "rate": RATE_HZ}
        audio = {"input": {"format": form, "transcription": transcription}}
        await self._send(
            {"type": "session.update", "session": {"type": "transcription", "audio": audio}}
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _send(self, event: dict[str, Any]) -> None:
        assert self._socket is not None, "it is connected"
        try:
            await self._socket.send(json.dumps(event))
        except websockets.ConnectionClosed:  # `told` says why
            await asyncio.Event().wait()

    async def hear(self, data: bytes) -> None:
        audio = base64.b64encode(data).decode()
        await self._send({"type": "input_audio_buffer.append", "audio": audio})

    async def finish(self) -> None:
        """What was said until now is all."""
        await self._send({"type": "input_audio_buffer.commit"})
        await self._send({"type": "input_audio_buffer.clear"})

    async def told(self) -> AsyncIterator[Told]:
        """Raises: EdgeAgentError with the daemon's message."""
        assert self._socket is not None, "it is connected"
        try:
            async for text in self._socket:
                event = json.loads(text)
                kind = event["type"]
                if kind in _KINDS:
                    yield Told(_KINDS[kind], event.get("delta", ""))
                elif kind in ("error", f"{_TRANSCRIPTION}.failed"):
                    if event["error"].get("event_id") == "finish" or event["error"].get(
                        "param"
                    ) == ("input_audio_buffer"):
                        continue  # nobody was speaking
                    raise EdgeAgentError(event["error"]["message"])
        except websockets.ConnectionClosedError as exc:
            raise EdgeAgentError("The daemon has gone: start it, then listen again.") from exc
        raise EdgeAgentError("The daemon has ended the session: listen again.")


class WorkerListener:
    """A speech worker of this command."""

    def __init__(self, here: Configuration, model: str | None, options: SpeechOptions) -> None:
        self._here = here
        self._model = model
        self._options = LiveOptions(speech=options, rate_hz=RATE_HZ)
        self._client: SpeechClient | None = None
        self._stream: LiveStream | None = None
        self._items = LiveItems(has_turns=True)
        self._n_ahead = 0
        self._has_room = asyncio.Event()

    async def __aenter__(self) -> WorkerListener:
        """Raises: ModelNotFound, and what loading a model raises."""
        config = await asyncio.to_thread(speech_config, self._here, self._model)
        process = await asyncio.to_thread(SpeechClient.launch, config, "error")
        self._client = await SpeechClient.start(config, timeout_s=LOAD_TIMEOUT_S, process=process)
        self._stream = self._client.listen(self._options)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def hear(self, data: bytes) -> None:
        client, stream = self._opened()
        while self._n_ahead > MAX_AHEAD_BYTES and client.is_alive:
            self._has_room.clear()
            await self._has_room.wait()
        self._n_ahead += len(data)
        client.tell(LiveAudio(stream.request_id, data))

    async def finish(self) -> None:
        """What was said until now is all."""
        client, stream = self._opened()
        client.tell(EndItem(stream.request_id))
        client.tell(DropItem(stream.request_id))

    def _opened(self) -> tuple[SpeechClient, LiveStream]:
        assert self._client is not None and self._stream is not None, "it is loaded"
        return self._client, self._stream

    async def told(self) -> AsyncIterator[Told]:
        """Raises: EdgeAgentError of the worker."""
        _, stream = self._opened()
        async for reply in stream:
            if isinstance(reply, Consumed):
                self._n_ahead -= reply.n_bytes
                self._has_room.set()
            elif not isinstance(reply, Finished):
                for event in self._items.heard(reply, 0.0):
                    if (told := _told(event)) is not None:
                        yield told


def _told(event: object) -> Told | None:
    match event:
        case SpeechStarted():
            return Told("began")
        case Delta(_, text):
            return Told("text", text)
        case Completed():
            return Told("ended")
        case Cleared():
            return Told("cleared")
        case Failed(_, error) | Refused(error):
            raise error
    return None
