"""What a transcription has told so far, wherever it runs, and the errors of the daemon."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.speech.segments import Segment


@dataclass(frozen=True)
class Part:
    """`duration_s` once it is known, and the segments since the part before, up to `until_s`."""

    duration_s: float = 0.0
    until_s: float = 0.0
    segments: tuple[Segment, ...] = ()
    language: str = ""
