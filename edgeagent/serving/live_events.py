"""What a live transcription tells its client, in the order in which it happens. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.errors import EdgeAgentError
from edgeagent.speech.segments import TokenScore


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak, at a time of the session's audio."""

    item_id: str
    at_s: float


@dataclass(frozen=True)
class SpeechStopped:
    item_id: str
    at_s: float


@dataclass(frozen=True)
class Committed:
    """An item is complete, and its text is on its way."""

    item_id: str
    previous_id: str | None


@dataclass(frozen=True)
class Cleared:
    """The audio that belonged to no item yet is forgotten."""


@dataclass(frozen=True)
class Delta:
    """More text of an item, which will not change. All deltas together are the transcript."""

    item_id: str
    text: str


@dataclass(frozen=True)
class SegmentHeard:
    """A part of an item, with its place in the session's audio."""

    item_id: str
    index: int
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Completed:
    """The whole text of an item of `seconds`."""

    item_id: str
    text: str
    seconds: float
    language: str
    logprobs: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class Failed:
    """An item that will have no (more) text."""

    item_id: str
    error: EdgeAgentError


@dataclass(frozen=True)
class Refused:
    """The session is in order, but what was asked for last could not be done."""

    error: EdgeAgentError


LiveEvent = (
    SpeechStarted
    | SpeechStopped
    | Committed
    | Cleared
    | Delta
    | SegmentHeard
    | Completed
    | Failed
    | Refused
)
