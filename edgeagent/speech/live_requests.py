"""The live sessions of one speech worker, as messages from and to the daemon.

The receiver thread passes messages on; sessions belong to the main thread.
"""

from __future__ import annotations

import logging
from typing import Any

from edgeagent.errors import EdgeAgentError, EngineFailed, QueueFull
from edgeagent.speech.live import LiveSession
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import DropItem, EndItem, Listen, LiveAudio
from edgeagent.speech.live_sessions import LiveSessions
from edgeagent.speech.protocol import Finished, SpeechConfig
from edgeagent.speech.turn_transcriber import TurnHearing
from edgeagent.speech.whisper import Whisper
from edgeagent.worker.channel import Channel
from edgeagent.worker.heap import return_free_pages

logger = logging.getLogger(__name__)


class LiveRequests:
    """Main thread only."""

    def __init__(self, channel: Channel, config: SpeechConfig, whisper: Whisper) -> None:
        self._channel = channel
        self._config = config
        self._whisper = whisper
        self._sessions = LiveSessions()

    def __len__(self) -> int:
        return len(self._sessions)

    def handle(self, message: Listen | LiveAudio | EndItem | DropItem) -> None:
        """A message of the daemon's. Those of sessions that have ended say nothing any more."""
        session = self._sessions.get(message.request_id)
        try:
            match message:
                case Listen(request_id, options) if session is None:
                    self._open(request_id, options)
                case Listen(_, options):
                    self._whisper.check(options.speech)
                    assert session is not None
                    session.command(options)
                case LiveAudio(_, data) if session is not None:
                    session.add(data)
                case EndItem() if session is not None:
                    session.command("end")
                case DropItem() if session is not None:
                    session.command("drop")
        except EdgeAgentError as exc:
            self._sessions.close(message.request_id)
            self._channel.refuse(message.request_id, exc)

    def _open(self, request_id: int, options: LiveOptions) -> None:
        if len(self._sessions) >= self._config.live_sessions:
            raise QueueFull(
                f"{len(self._sessions)} live sessions are open, which is all that this device keeps up with: "
                "end one, or raise speech.live.max_sessions.",
                retry_after_s=5.0,
            )
        self._whisper.check(options.speech)
        self._sessions.open(
            LiveSession(request_id, options, lambda given: TurnHearing(self._whisper, given.speech))
        )

    def cancel(self, request_id: int) -> None:
        """End a session, with its last reply."""
        if self._sessions.close(request_id):
            self._channel.send(Finished(request_id))
            if not self._sessions:
                return_free_pages()

    @property
    def is_idle(self) -> bool:
        return self._sessions.next() is None

    def step(self) -> bool:
        """Let the most urgent session take a step. False when there is nothing to do."""
        found = self._sessions.next()
        if found is None:
            return False
        session, n_talking = found
        self._sessions.move_back(session)
        try:
            for reply in session.step(n_talking):
                self._channel.send(reply)
        except Exception as exc:  # of the libraries, at what a stream holds: its own session ends
            logger.exception("live_session_failed request=%s", session.request_id)
            self._sessions.close(session.request_id)
            error: Any = exc
            if not isinstance(exc, EdgeAgentError):
                error = EngineFailed(f"The audio could not be heard ({type(exc).__name__}).")
            self._channel.refuse(session.request_id, error)
        return True
