"""The items of one live session: from what the worker hears to what the client is told. Pure but for ids.

With turn detection each turn is an item. Without, the client commits items, and the turns that the worker
finds are parts of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.serving.live_events import (
    Cleared,
    Committed,
    Completed,
    Delta,
    Failed,
    LiveEvent,
    Refused,
    SegmentHeard,
    SpeechStarted,
    SpeechStopped,
)
from edgeagent.speech.live_protocol import (
    ItemDropped,
    ItemHeard,
    LiveReply,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)
from edgeagent.speech.segments import TokenScore
from edgeagent.types.ids import new_id

# OpenAI refuses to commit less.
MIN_COMMIT_S = 0.1


def nothing_to_commit(seconds: float) -> InvalidParameter:
    return InvalidParameter(
        f"The audio buffer holds {1000 * seconds:.0f} ms that belong to no item, at least "
        f"{1000 * MIN_COMMIT_S:.0f} ms are needed: send audio before you commit it.",
        param="input_audio_buffer",
    )


@dataclass(eq=False)
class LiveItem:
    """An item whose text is not complete."""

    id: str = field(default_factory=lambda: new_id("item"))
    text: str = ""
    seconds: float = 0.0
    language: str = ""
    logprobs: tuple[TokenScore, ...] = ()
    n_segments: int = 0
    segment: str = ""  # of the turn that is heard now
    is_committed: bool = False
    is_dropped: bool = False


class LiveItems:
    """The state of one session. `has_turns`: whether turns are found for the client."""

    def __init__(self, *, has_turns: bool) -> None:
        self.has_turns = has_turns
        self._items: deque[LiveItem] = deque()  # the oldest first
        self._previous_id: str | None = None
        self._commits: deque[int] = deque()  # how many items there had been, by commit
        self._n_items = 0

    def appended(self, seconds: float) -> None:
        """Audio goes to the worker. Without turn detection it belongs to an item from the beginning."""
        if self.has_turns:
            return
        if not self._items or self._items[-1].is_committed or self._items[-1].is_dropped:
            self._items.append(LiveItem())
        self._items[-1].seconds += seconds

    @property
    def open_s(self) -> float:
        """How much audio belongs to an item that the client has not committed."""
        last = self._items[-1] if self._items else None
        if self.has_turns or last is None or last.is_committed or last.is_dropped:
            return 0.0
        return last.seconds

    def commit(self) -> Iterator[LiveEvent]:
        """The client commits; `EndItem` goes to the worker. Raises: InvalidParameter for too little."""
        if self.has_turns:
            n_open = sum(not item.is_committed for item in self._items)
            self._commits.append(self._n_items - n_open)
            return
        if self.open_s < MIN_COMMIT_S:
            raise nothing_to_commit(self.open_s)
        yield self._committed(self._items[-1])

    def clear(self) -> None:
        """The client clears; `DropItem` goes to the worker."""
        if not self.has_turns and self.open_s:
            self._items[-1].is_dropped = True

    def failed(self, error: EdgeAgentError) -> Iterator[LiveEvent]:
        """The worker has gone: what is not complete will not be."""
        items, self._items = self._items, deque()
        self._commits.clear()
        for item in items:
            if not item.is_dropped:
                yield Failed(item.id, error)

    def heard(self, reply: LiveReply, offset_s: float) -> Iterator[LiveEvent]:
        """What a reply of the worker's means. `offset_s`: audio before this worker's first."""
        match reply:
            case TurnBegan(_, at_s) if self.has_turns:
                self._items.append(LiveItem())
                self._n_items += 1
                yield SpeechStarted(self._items[-1].id, offset_s + at_s)
            case TurnOver(_, at_s) if self.has_turns:
                yield SpeechStopped(self._items[-1].id, offset_s + at_s)
                yield self._committed(self._items[-1])
            case TurnText(_, text):
                yield from self._more(text)
            case TurnHeard():
                yield from self._turn_heard(reply, offset_s)
            case ItemHeard():
                yield from self._item_heard()
            case ItemDropped():
                self._item_dropped()
                yield Cleared()

    def _committed(self, item: LiveItem) -> Committed:
        item.is_committed = True
        previous, self._previous_id = self._previous_id, item.id
        return Committed(item.id, previous)

    def _more(self, text: str) -> Iterator[LiveEvent]:
        item = self._items[0] if self._items else None
        if item is None or not text:
            return
        shown = text if item.text else text.lstrip()
        item.text += shown
        item.segment += shown
        if shown and not item.is_dropped:
            yield Delta(item.id, shown)

    def _turn_heard(self, heard: TurnHeard, offset_s: float) -> Iterator[LiveEvent]:
        yield from self._more(heard.text)
        if not self._items:
            return
        item = self._items[0]
        item.language = heard.language or item.language
        item.logprobs += heard.logprobs
        segment, item.segment = item.segment.strip(), ""
        if segment and not item.is_dropped:
            start_s, end_s = offset_s + heard.start_s, offset_s + heard.end_s
            yield SegmentHeard(item.id, item.n_segments, segment, start_s, end_s)
            item.n_segments += 1
        if self.has_turns:
            item.seconds = heard.end_s - heard.start_s
            yield from self._complete()

    def _complete(self) -> Iterator[LiveEvent]:
        item = self._items.popleft()
        if not item.is_dropped:
            yield Completed(item.id, item.text, item.seconds, item.language, item.logprobs)

    def _item_heard(self) -> Iterator[LiveEvent]:
        if self.has_turns:
            if self._commits and self._commits.popleft() == self._n_items:
                yield Refused(nothing_to_commit(0.0))
        elif self._items and self._items[0].is_committed:
            yield from self._complete()

    def _item_dropped(self) -> None:
        if self.has_turns:
            if self._items and not self._items[-1].is_committed:
                self._items.pop()
        else:
            self._items = deque(item for item in self._items if not item.is_dropped)
