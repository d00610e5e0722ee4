"""What a transcription has told so far, wherever it runs, and the errors of the daemon."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgeagent.cli.shared.daemon import explained
from edgeagent.errors import BodyTooLarge, EdgeAgentError
from edgeagent.speech.segments import Segment


@dataclass(frozen=True)
class Part:
    """`duration_s` once it is known, and the segments since the part before, up to `until_s`."""

    duration_s: float = 0.0
    until_s: float = 0.0
    segments: tuple[Segment, ...] = ()
    language: str = ""


def error_of(status: int, body: bytes) -> EdgeAgentError:
    """The daemon's error answer."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the daemon answered {status}"
    kind = BodyTooLarge if status == 413 else EdgeAgentError
    return kind(explained(status, message))
