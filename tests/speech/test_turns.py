"""Turns of a stream, found by the real detector."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edgeagent.speech.live_options import TurnDetection
from edgeagent.speech.turns import Turn, TurnFinder, TurnStart
from edgeagent.speech.vad import RATE_HZ
from tests.speech.recordings import TURNS, dialogue

SOUND = dialogue().mean(axis=0).astype(np.float32)


def found(finder: TurnFinder, samples: np.ndarray, size: int) -> list[TurnStart | Turn]:
    events = []
    for at in range(0, len(samples), size):
        events += finder.feed(samples[at : at + size])
    return events + list(finder.flush())


@pytest.mark.parametrize("size", [512, 1600, 5000, 160_000])
def test_each_turn_begins_and_ends_whatever_the_pieces(size):
    events = found(TurnFinder(TurnDetection(silence_duration_ms=300)), SOUND, size)
    assert [type(event) for event in events] == [TurnStart, Turn] * (len(events) // 2)
    turns = [event for event in events if isinstance(event, Turn)]
    for turn, start in zip(turns, events[::2], strict=True):
        assert turn.start == start.at
        assert turn.start <= turn.speech_start < turn.speech_end <= turn.end
        assert np.array_equal(turn.samples, SOUND[turn.start : turn.end])
    for one, other in pairwise(turns):
        assert one.end <= other.start
    assert abs(turns[0].speech_start / RATE_HZ - TURNS[0]["start_s"]) < 0.3
    assert abs(turns[-1].speech_end / RATE_HZ - TURNS[-1]["end_s"]) < 0.3


def test_an_open_turn_is_there_as_far_as_it_has_come():
    finder = TurnFinder(None)
    first = round((TURNS[0]["start_s"] + 1) * RATE_HZ)
    assert [type(e) for e in finder.feed(SOUND[:first])] == [TurnStart]
    turn = finder.open_turn()
    assert turn is not None
    assert turn.end == first
    assert turn.speech_s > 0.5


def test_a_turn_that_is_dropped_is_gone_and_the_next_begins_behind_it():
    finder = TurnFinder(None)
    first = round((TURNS[0]["start_s"] + 1) * RATE_HZ)
    list(finder.feed(SOUND[:first]))
    finder.drop()
    assert finder.open_turn() is None
    events = list(finder.feed(SOUND[first:])) + list(finder.flush())
    assert isinstance(events[0], TurnStart)
    assert events[0].at >= first


def test_speech_without_a_pause_is_cut_and_nothing_is_lost():
    start, end = (round(TURNS[0][name] * RATE_HZ) for name in ("start_s", "end_s"))
    endless = np.tile(SOUND[start + 4000 : end - 4000], 30)[: 50 * RATE_HZ]
    events = found(TurnFinder(TurnDetection(silence_duration_ms=2000)), endless, 16_000)
    turns = [event for event in events if isinstance(event, Turn)]
    assert len(turns) >= 3
    assert all(len(turn.samples) <= 21 * RATE_HZ for turn in turns)
    for one, other in pairwise(turns):
        assert one.end == other.start


def test_silence_has_no_turns_and_is_forgotten():
    finder = TurnFinder(TurnDetection())
    for _ in range(30):
        assert list(finder.feed(np.zeros(RATE_HZ, dtype=np.float32))) == []
    assert finder.n_samples == 30 * RATE_HZ
    assert len(finder._held) <= 3 * RATE_HZ
