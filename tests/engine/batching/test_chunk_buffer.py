"""When the pieces of answers leave the engine."""

from __future__ import annotations

import itertools

import pytest

from edgeagent.engine.batching import chunk_buffer
from edgeagent.engine.batching.chunk_buffer import ChunkBuffer, Chunks
from edgeagent.types.answer import TokenChunk

STEP_S = 0.033


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(chunk_buffer, "time", clock)
    return clock


def frames_of(
    box: ChunkBuffer, sent: list[Chunks], clock: Clock, n_answers: int, n_steps: int
) -> int:
    before = len(sent)
    for _ in range(n_steps):
        clock.now_s += STEP_S
        for request_id in range(n_answers):
            box.put(request_id, TokenChunk(0, "x"))
        box.flush(n_answers)
    return len(sent) - before


@pytest.mark.parametrize(("n_answers", "n_frames"), [(1, 12), (4, 12), (8, 12), (16, 6), (32, 2)])
def test_pieces_come_more_seldom_the_more_answers_there_are(
    clock: Clock, n_answers: int, n_frames: int
):
    sent: list[Chunks] = []
    box = ChunkBuffer(sent.append, 0.020)
    box.put(0, TokenChunk(0, "x"))
    box.flush(n_answers)
    assert frames_of(box, sent, clock, n_answers, 12) == n_frames
    assert all(len(chunks) == n_answers for chunks in sent[1:])  # one for each, with all its text


def test_a_step_that_ends_just_before_the_interval_does_not_double_the_gap(clock: Clock):
    sent_s: list[float] = []
    box = ChunkBuffer(lambda chunks: sent_s.append(clock.now_s), 0.040)
    for step_s in [0.038, 0.039, 0.041, 0.038, 0.012, 0.012, 0.012, 0.012, 0.150]:
        clock.now_s += step_s
        box.put(0, TokenChunk(0, "x"))
        box.flush(1)
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(sent_s)]
    assert gaps == [0.039, 0.041, 0.038, 0.036, 0.162]


def test_first_and_last_pieces_wait_for_nothing(clock: Clock):
    sent: list[Chunks] = []
    box = ChunkBuffer(sent.append, 10.0)
    box.put(1, TokenChunk(0, "a"))
    box.flush(8)
    box.put(1, TokenChunk(0, "b"))
    box.flush(8)
    assert len(sent) == 1
    box.put(2, TokenChunk(0, "first"))
    box.hurry()
    box.flush(8)
    assert [chunk.text for _, chunk in sent[1]] == ["b", "first"]
    box.put(1, TokenChunk(0, "c"))
    box.put(2, TokenChunk(0, "end", finish="stop"))
    box.flush(7)
    assert [chunk.text for _, chunk in sent[2]] == ["c", "end"]
    box.put(1, TokenChunk(0, "d"))
    box.flush(0)
    assert [chunk.text for _, chunk in sent[3]] == ["d"]


def test_an_interval_of_nothing_sends_every_token(clock: Clock):
    sent: list[Chunks] = []
    assert frames_of(ChunkBuffer(sent.append, 0.0), sent, clock, 16, 5) == 5
