"""The daemon's side of one speech worker: recordings in, windows of segments out."""

from __future__ import annotations

from typing import Any

from edgeagent.speech import protocol
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import DropItem, EndItem, Listen, LiveAudio, LiveReply
from edgeagent.speech.options import SpeechOptions
from edgeagent.worker.client import WorkerClient
from edgeagent.worker.reply_stream import ReplyStream

Reply = protocol.Surveyed | protocol.Window | protocol.Finished


class Transcription(ReplyStream[Reply]):
    """The replies to one recording: what is known of it, its windows, its end."""

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

    def transcribe(
        self, recording: bytes, options: SpeechOptions, *, priority: int = 0
    ) -> Transcription:
        """Send a recording. Raises: EngineDied when the worker has ended."""
        stream = Transcription(self._new_id(), self.cancel)
        request = protocol.Transcribe(stream.request_id, options, len(recording), priority)
        self._open(stream, request)
        for at in range(0, len(recording), protocol.PART_BYTES):
            part = recording[at : at + protocol.PART_BYTES]
            self._send(protocol.Audio(stream.request_id, part))
        return stream

    def listen(self, options: LiveOptions) -> LiveStream:
        """Open a live session. Raises: EngineDied when the worker has ended."""
        stream = LiveStream(self._new_id(), self.cancel)
        self._open(stream, Listen(stream.request_id, options))
        return stream

    def tell(self, message: Listen | LiveAudio | EndItem | DropItem) -> None:
        """The next input of a live session. Does nothing where the worker has ended."""
        if self.is_alive:
            self._send(message)

    def _receive_own(self, message: Any) -> None:
        self._deliver(message.request_id, message)
