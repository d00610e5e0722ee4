"""Until when a client of live transcription may send no audio. Pure but for the clock."""

from __future__ import annotations

from collections.abc import Callable


class AudioDeadline:
    """Moves with the audio that a session has received; other messages do not keep the session open."""

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._audio_s: float | None = None
        self._at_s = 0.0

    def at_s(self, audio_s: float | None) -> float:
        """The deadline by the clock, given the audio of the session so far.

        None: there is no session yet, and each message moves the deadline. A session that begins anew has
        less audio than the one before, which moves nothing.
        """
        if audio_s is None or self._audio_s is None or audio_s > self._audio_s:
            self._at_s = self._clock() + self._timeout_s
        self._audio_s = audio_s
        return self._at_s
