"""What the daemon and a speech worker exchange, beside the messages of every worker (`worker/protocol.py`).

A request is one `Transcribe` and its recording in `Audio` parts. The worker answers with one `Surveyed`, then
`Window` after window, then `Finished`; or with a `Refusal`, at whatever point. A `LongRecording` stays with
the daemon: the worker asks for its parts by `Fetch`, and each is answered with an `Audio`. Live sessions
have messages of their own (`live_protocol.py`).
"""

from __future__ import annotations

import msgspec

from edgeagent.speech.live_protocol import (
    Consumed,
    DropItem,
    EndItem,
    ItemDropped,
    ItemHeard,
    Listen,
    LiveAudio,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Checkpoint, Segment
from edgeagent.types.worker_config import WorkerConfig, WorkerFacts, WorkerHealth
from edgeagent.worker.protocol import (
    Cancel,
    Heartbeat,
    Load,
    LoadFailure,
    Ready,
    Refusal,
    SetLimits,
    Shutdown,
)

# A part of a recording in one frame: small enough that other messages do not wait for long.
PART_BYTES = 1 << 20


class SpeechConfig(WorkerConfig, frozen=True, kw_only=True):
    """How to load one speech model; `path` is its folder. The rest bounds what one request may bring."""

    compute_type: str = "int8"
    max_bytes: int = 200 << 20
    max_seconds: float = 4 * 3600.0
    queue_limit: int = 16
    live_sessions: int = 4


class SpeechFacts(WorkerFacts, frozen=True, kw_only=True):
    """What a speech worker reports once its model is loaded."""

    languages: tuple[str, ...]


class SpeechHealth(WorkerHealth, frozen=True, kw_only=True):
    """The last heartbeat of a speech worker."""


# --- from the daemon


class LongRecording(msgspec.Struct, frozen=True, kw_only=True):
    """What a request for a long recording brings instead of the recording: bounds of its own, and the
    checkpoint to go on from."""

    max_seconds: float
    checkpoint: Checkpoint | None = None


class Transcribe(msgspec.Struct, frozen=True, tag="transcribe"):
    """A request. Of those that wait, windows of the lowest `priority` are heard first."""

    request_id: int
    options: SpeechOptions
    n_bytes: int
    priority: int = 0
    long: LongRecording | None = None


class Audio(msgspec.Struct, frozen=True, tag="audio"):
    """The next part of the recording of a request; of a long one the part that begins at `offset`."""

    request_id: int
    data: bytes
    offset: int = 0


# --- from the worker


class Surveyed(msgspec.Struct, frozen=True, tag="surveyed"):
    """The recording is whole and within its bounds."""

    request_id: int
    duration_s: float
    n_channels: int
    has_speakers: bool


class Fetch(msgspec.Struct, frozen=True, tag="fetch"):
    """A question for up to `n_bytes` of a long recording, from `offset` on."""

    request_id: int
    offset: int
    n_bytes: int


class Window(msgspec.Struct, frozen=True, tag="window"):
    """What was heard up to `until_s`, since the window before. `context`: tokens of the text before the
    next window, for checkpoints of long recordings."""

    request_id: int
    segments: tuple[Segment, ...]
    until_s: float
    language: str
    context: tuple[int, ...] = ()


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The end, of all there is or because of a `Cancel`."""

    request_id: int


ToWorker = (
    Load[SpeechConfig]
    | Transcribe
    | Audio
    | Listen
    | LiveAudio
    | EndItem
    | DropItem
    | Cancel
    | SetLimits
    | Shutdown
)
ToDaemon = (
    Ready[SpeechFacts]
    | LoadFailure
    | Surveyed
    | Fetch
    | Window
    | TurnBegan
    | TurnOver
    | TurnText
    | TurnHeard
    | ItemHeard
    | ItemDropped
    | Consumed
    | Finished
    | Refusal
    | Heartbeat[SpeechHealth]
)
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_daemon = msgspec.msgpack.Decoder(ToDaemon).decode
