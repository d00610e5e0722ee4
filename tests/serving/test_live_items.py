"""What a client of a live session is told, by what the worker hears."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.errors import EngineDied, InvalidParameter
from edgeagent.serving.live_events import (
    Cleared,
    Committed,
    Completed,
    Delta,
    Failed,
    Refused,
    SegmentHeard,
    SpeechStarted,
    SpeechStopped,
)
from edgeagent.serving.live_items import LiveItems
from edgeagent.speech.live_protocol import (
    ItemDropped,
    ItemHeard,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)


def told(items: LiveItems, *replies: Any, offset_s: float = 0.0) -> list[Any]:
    return [event for reply in replies for event in items.heard(reply, offset_s)]


def heard(text: str, start_s: float = 1.0, end_s: float = 3.0) -> TurnHeard:
    return TurnHeard(1, text, start_s, end_s, "en")


def test_a_turn_is_an_item_whose_deltas_are_its_transcript():
    items = LiveItems(has_turns=True)
    events = told(
        items, TurnBegan(1, 0.7), TurnText(1, " Good"), TurnText(1, " morning"), TurnOver(1, 3.0),
        heard(", all."), offset_s=10.0,
    )  # fmt: skip
    kinds = [type(event) for event in events]
    assert kinds == [
        SpeechStarted, Delta, Delta, SpeechStopped, Committed, Delta, SegmentHeard, Completed,
    ]  # fmt: skip
    assert len({event.item_id for event in events}) == 1
    assert events[0].at_s == 10.7
    assert "".join(e.text for e in events if isinstance(e, Delta)) == events[-1].text
    assert events[-1].text == "Good morning, all."
    assert (events[-2].start_s, events[-2].end_s) == (11.0, 13.0)


def test_the_next_turn_may_begin_before_the_last_is_heard():
    items = LiveItems(has_turns=True)
    events = told(
        items, TurnBegan(1, 0.0), TurnOver(1, 1.0), TurnBegan(1, 2.0), heard(" one"), TurnOver(1, 3.0),
        heard(" two"),
    )  # fmt: skip
    completed = [event for event in events if isinstance(event, Completed)]
    assert [event.text for event in completed] == ["one", "two"]
    committed = [event for event in events if isinstance(event, Committed)]
    assert [event.previous_id for event in committed] == [None, committed[0].item_id]
    assert [event.item_id for event in completed] == [event.item_id for event in committed]


def test_an_item_that_the_client_commits_may_have_several_turns():
    items = LiveItems(has_turns=False)
    items.appended(4.0)
    events = told(items, TurnBegan(1, 0.0), TurnOver(1, 1.0), heard(" one."), heard(" Two."))
    events += items.commit()
    items.appended(1.0)  # of the next item
    events += told(items, ItemHeard(1))
    assert [type(event) for event in events] == [
        Delta, SegmentHeard, Delta, SegmentHeard, Committed, Completed,
    ]  # fmt: skip
    assert (events[-1].text, events[-1].seconds) == ("one. Two.", 4.0)
    assert [event.index for event in events if isinstance(event, SegmentHeard)] == [0, 1]
    assert items.open_s == 1.0


def test_too_little_cannot_be_committed():
    items = LiveItems(has_turns=False)
    with pytest.raises(InvalidParameter, match="0 ms"):
        list(items.commit())
    items.appended(0.09)
    with pytest.raises(InvalidParameter, match="90 ms"):
        list(items.commit())


def test_with_turns_an_empty_commit_is_refused_and_one_with_a_turn_is_not():
    items = LiveItems(has_turns=True)
    assert list(items.commit()) == []
    (refused,) = told(items, ItemHeard(1))
    assert isinstance(refused, Refused)
    told(items, TurnBegan(1, 0.0))
    assert list(items.commit()) == []
    events = told(items, TurnOver(1, 1.0), heard(" one"), ItemHeard(1))
    assert isinstance(events[-1], Completed)


def test_what_is_cleared_has_no_more_text():
    items = LiveItems(has_turns=False)
    items.appended(2.0)
    items.clear()
    items.appended(1.0)
    assert told(items, TurnText(1, " gone")) == []
    assert told(items, ItemDropped(1)) == [Cleared()]
    (delta,) = told(items, TurnText(1, " kept"))
    assert delta.text == "kept"
    assert items.open_s == 1.0
    turns = LiveItems(has_turns=True)
    told(turns, TurnBegan(1, 0.0), TurnOver(1, 1.0), TurnBegan(1, 2.0))
    assert told(turns, ItemDropped(1)) == [Cleared()]
    assert isinstance(told(turns, heard(" one"))[-1], Completed)
    assert told(turns, heard(" two")) == []


def test_a_worker_that_dies_fails_what_is_open():
    items = LiveItems(has_turns=True)
    told(items, TurnBegan(1, 0.0), TurnOver(1, 1.0), TurnBegan(1, 2.0))
    failed = list(items.failed(EngineDied("gone")))
    assert [type(event) for event in failed] == [Failed, Failed]
    assert list(items.failed(EngineDied("gone"))) == []
    assert told(items, heard(" late")) == []
