from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine import protocol
from edgeagent.worker import frames


@given(ids=st.lists(st.integers(0, 2**31), max_size=20), sizes=st.lists(st.integers(1, 9)))
def test_frames_are_found_however_the_bytes_arrive(ids, sizes):
    data = b"".join(frames.encode(protocol.Cancel(i)) for i in ids)
    splitter = frames.FrameSplitter()
    bodies = []
    for size in [*sizes, len(data)]:
        bodies += splitter.feed(data[:size])
        data = data[size:]
    assert [protocol.decode_to_worker(body) for body in bodies] == [protocol.Cancel(i) for i in ids]


def test_a_frame_over_the_bound_is_refused_before_it_is_stored():
    with pytest.raises(ValueError, match="bound"):
        frames.FrameSplitter().feed(frames.LENGTH.pack(frames.MAX_FRAME_BYTES + 1))
