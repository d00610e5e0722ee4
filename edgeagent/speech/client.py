"""The daemon's side of one speech worker: recordings in, windows of segments out."""

from __future__ import annotations

from typing import Any

from edgeagent.speech import protocol
from edgeagent.speech.options import SpeechOptions
from edgeagent.worker.client import WorkerClient
from edgeagent.worker.reply_stream import ReplyStream

Reply = protocol.Surveyed | protocol.Window | protocol.Finished


class Transcription(ReplyStream[Reply]):
    """The replies to one recording: what is known of it, its windows, its end."""

    def is_last(self, reply: Reply) -> bool:
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

    def _receive_own(self, message: Any) -> None:
        match message:
            case protocol.Surveyed() | protocol.Window() | protocol.Finished():
                self._deliver(message.request_id, message)
