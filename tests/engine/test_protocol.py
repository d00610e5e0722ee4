from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine import protocol
from edgeagent.types import GenerateSpec, Prompt, Sampling, TokenChunk, Usage

USAGE = Usage(3, 1, 2, 0.1, 0.2, 0.3)
SPEC = GenerateSpec(prompts=[Prompt(text="x")], sampling=Sampling(logit_bias={5: -1.5}, seed=-1))


@pytest.mark.parametrize(
    "message",
    [
        protocol.Generate(1, SPEC),
        protocol.Cancel(7),
        protocol.Shutdown(),
    ],
)
def test_what_the_daemon_says_arrives_as_it_was(message):
    assert protocol.decode_to_worker(protocol.encode(message)[4:]) == message


@pytest.mark.parametrize(
    "message",
    [
        protocol.LoadFailed("gguf_refused", "no"),
        protocol.Step([(1, TokenChunk(0, "é")), (2, TokenChunk(1, "", "stop", USAGE))]),
        protocol.Step([(1, TokenChunk(0, "", "error", USAGE, ("engine_failed", "x")))]),
        protocol.Refused(3, "queue_full", "full", None, 2.5),
    ],
)
def test_what_the_worker_says_arrives_as_it_was(message):
    assert protocol.decode_to_daemon(protocol.encode(message)[4:]) == message


@given(ids=st.lists(st.integers(0, 2**31), max_size=20), sizes=st.lists(st.integers(1, 9)))
def test_frames_are_found_however_the_bytes_arrive(ids, sizes):
    data = b"".join(protocol.encode(protocol.Cancel(i)) for i in ids)
    splitter = protocol.FrameSplitter()
    bodies = []
    for size in [*sizes, len(data)]:
        bodies += splitter.feed(data[:size])
        data = data[size:]
    assert [protocol.decode_to_worker(body) for body in bodies] == [protocol.Cancel(i) for i in ids]


def test_a_frame_over_the_bound_is_refused_before_it_is_stored():
    with pytest.raises(ValueError, match="bound"):
        protocol.FrameSplitter().feed(protocol.LENGTH.pack(protocol.MAX_FRAME_BYTES + 1))
