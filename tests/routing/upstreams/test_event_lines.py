"""Events from the bytes of an upstream."""

from __future__ import annotations

import pytest

from edgeagent.routing.upstreams.event_lines import MAX_ANSWER_BYTES, MAX_EVENT_BYTES, EventLines
from edgeagent.routing.upstreams.faults import Fault

STREAM = b": ping\r\nevent: x\r\ndata: one\r\n\r\ndata:two\n\nid: 3\ndata: \xc3\xa4\n\ndata: cut"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_of_any_size_give_the_same_events(size):
    lines = EventLines()
    pieces = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    found = [event for piece in pieces for event in lines.feed(piece)]
    assert found == [b"one", b"two", b"\xc3\xa4"]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_a_fault(end):
    lines = EventLines()
    with pytest.raises(Fault, match="an event"):
        for _ in range(20):
            lines.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 10) + end * 0)
        lines.feed(end)
    with pytest.raises(Fault, match="an event"):
        EventLines().feed(b"data: " + b"x" * (MAX_EVENT_BYTES + 1) + end)


def test_an_answer_without_end_is_a_fault():
    lines, piece = EventLines(), (b"data: " + b"x" * 200_000 + b"\n") * 40
    with pytest.raises(Fault, match="its answer has more"):
        for _ in range(MAX_ANSWER_BYTES // len(piece) + 1):
            lines.feed(piece)
