"""What the daemon and a speech worker exchange about live sessions.

A session begins with `Listen` and ends with `Cancel`, which the worker answers with `Finished`; a `Refusal`
ends it at whatever point. In between, turns come one after another: `TurnBegan`, `TurnOver`, and of the
oldest that is not heard yet `TurnText`, as often as words become final, and `TurnHeard`, its end.
"""

from __future__ import annotations

import msgspec

from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.segments import TokenScore

# --- from the daemon


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """Open a live session; for one that is open, how it goes on from here."""

    request_id: int
    options: LiveOptions


class LiveAudio(msgspec.Struct, frozen=True, tag="live_audio"):
    """The next samples, in the format of the session."""

    request_id: int
    data: bytes


class EndItem(msgspec.Struct, frozen=True, tag="end_item"):
    """The open turn ends here. Answered by `ItemHeard`, behind all turns so far."""

    request_id: int


class DropItem(msgspec.Struct, frozen=True, tag="drop_item"):
    """Forget what has come since the last item or turn ended. Answered by `ItemDropped`."""

    request_id: int


# --- from the worker


class TurnBegan(msgspec.Struct, frozen=True, tag="turn_began"):
    """Somebody speaks, since `at_s` of the session's audio."""

    request_id: int
    at_s: float


class TurnOver(msgspec.Struct, frozen=True, tag="turn_over"):
    """The turn that began last is over at `at_s`. Its text follows."""

    request_id: int
    at_s: float


class TurnText(msgspec.Struct, frozen=True, tag="turn_text"):
    """More words of the oldest turn that is not heard yet; they will not change."""

    request_id: int
    text: str


class TurnHeard(msgspec.Struct, frozen=True, tag="turn_heard"):
    """The rest of the oldest turn, which is done. `start_s` to `end_s` of the session's audio."""

    request_id: int
    text: str
    start_s: float
    end_s: float
    language: str
    logprobs: tuple[TokenScore, ...] = ()


class ItemHeard(msgspec.Struct, frozen=True, tag="item_heard"):
    """The answer to `EndItem`."""

    request_id: int


class ItemDropped(msgspec.Struct, frozen=True, tag="item_dropped"):
    """The answer to `DropItem`."""

    request_id: int


class Consumed(msgspec.Struct, frozen=True, tag="consumed"):
    """So many bytes more have been looked at and need no place any longer."""

    request_id: int
    n_bytes: int


LiveReply = TurnBegan | TurnOver | TurnText | TurnHeard | ItemHeard | ItemDropped | Consumed
