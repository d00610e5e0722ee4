"""The daemon's side of one speech worker: recordings in, windows of segments out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from edgeagent.errors import EdgeAgentError
from edgeagent.speech import protocol
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import DropItem, EndItem, Listen, LiveAudio, LiveReply
from edgeagent.speech.options import SpeechOptions
from edgeagent.worker.client import OnDeath, WorkerClient
from edgeagent.worker.reply_stream import ReplyStream

Reply = protocol.Surveyed | protocol.Window | protocol.Finished


class RecordingSource(Protocol):
    """A recording that is read part by part, on threads, one part at a time."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """At least one byte, up to `n_bytes`, unless the recording ends before. Raises: EdgeAgentError."""
        ...


class Transcription(ReplyStream[Reply]):
    """The replies to one recording: what is known of it, its windows, its end. `source`: where the parts of
    a long one come from."""

    def __init__(
        self, request_id: int, cancel: Callable[[int], None], source: RecordingSource | None = None
    ) -> None:
        super().__init__(request_id, cancel)
        self.source = source

    def is_last(self, reply: Reply) -> bool:
        return isinstance(reply, protocol.Finished)


class LiveStream(ReplyStream[LiveReply | protocol.Finished]):
    """The replies to one live session, until it is cancelled."""

    def is_last(self, reply: LiveReply | protocol.Finished) -> bool:
        return isinstance(reply, protocol.Finished)


class SpeechClient(WorkerClient):
    """A running speech worker."""

    module = "edgeagent.speech.worker"
    decode = staticmethod(protocol.decode_to_daemon)

    config: protocol.SpeechConfig
    facts: protocol.SpeechFacts
    health: protocol.SpeechHealth = protocol.SpeechHealth()

    def __init__(
        self,
        config: protocol.SpeechConfig,
        on_death: OnDeath = lambda client, status: None,
    ) -> None:
        super().__init__(config, on_death)
        self._reading: set[asyncio.Task[None]] = set()

    def transcribe(
        self, recording: bytes, options: SpeechOptions, *, priority: int = 0
    ) -> Transcription:
        """Send a recording. Raises: EngineDied when the worker has ended."""
        stream = Transcription(self._new_id(), self.cancel)
        request = protocol.Transcribe(stream.request_id, options, len(recording), priority)
        self._open(stream, request)
        self._send_in_turn(self._parts(stream.request_id, recording))
        return stream

    def _parts(self, request_id: int, recording: bytes) -> Iterator[protocol.Audio]:
        """The parts of a recording, as long as its request is open."""
        for at in range(0, len(recording), protocol.PART_BYTES):
            if request_id in self._streams:
                yield protocol.Audio(request_id, recording[at : at + protocol.PART_BYTES])

    def listen(self, options: LiveOptions) -> LiveStream:
        """Open a live session. Raises: EngineDied when the worker has ended."""
        stream = LiveStream(self._new_id(), self.cancel)
        self._open(stream, Listen(stream.request_id, options))
        return stream

    def tell(self, message: Listen | LiveAudio | EndItem | DropItem) -> None:
        """The next input of a live session. Does nothing where the worker has ended."""
        if self.is_alive:
            self._send(message)

    def transcribe_long(
        self,
        source: RecordingSource,
        n_bytes: int,
        options: SpeechOptions,
        long: protocol.LongRecording,
        *,
        priority: int,
    ) -> Transcription:
        """Let the worker read a recording part by part. Raises: EngineDied when the worker has ended."""
        stream = Transcription(self._new_id(), self.cancel, source)
        request = protocol.Transcribe(stream.request_id, options, n_bytes, priority, long)
        self._open(stream, request)
        return stream

    async def _answer(self, source: RecordingSource, asked: protocol.Fetch) -> None:
        try:
            data = await asyncio.to_thread(source.read, asked.offset, asked.n_bytes)
        except EdgeAgentError as exc:
            if (stream := self._streams.get(asked.request_id)) is not None:
                self.cancel(asked.request_id)
                self._remove(asked.request_id)  # what the worker says of its end is no news
                stream.fail(exc)
        else:
            self._send(protocol.Audio(asked.request_id, data, asked.offset))

    def _receive_own(self, message: Any) -> None:
        match message:
            case protocol.Fetch(request_id):
                stream = self._streams.get(request_id)
                if isinstance(stream, Transcription) and stream.source is not None:
                    task = asyncio.ensure_future(self._answer(stream.source, message))
                    self._reading.add(task)
                    task.add_done_callback(self._reading.discard)
            case _:
                self._deliver(message.request_id, message)
