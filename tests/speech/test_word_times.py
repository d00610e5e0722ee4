"""Word times: kept to what sounds, in order, within the window."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.speech.word_times import Timed, refined, sound_of

RATE_HZ = 16_000


def sounding(*spans: tuple[float, float], length_s: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(length_s * RATE_HZ)).astype(np.float32) * 1e-4
    for start, end in spans:
        part = slice(round(start * RATE_HZ), round(end * RATE_HZ))
        samples[part] += rng.standard_normal(part.stop - part.start).astype(np.float32) * 0.1
    return samples


def test_sound_is_found_with_its_quiet_beginning_and_end():
    ((start, end),) = sound_of(sounding((1.0, 2.0)), RATE_HZ).spans
    assert 0.85 <= start <= 1.0
    assert 2.0 <= end <= 2.25


def test_a_word_that_runs_into_a_pause_is_kept_to_its_sound():
    sound = sound_of(sounding((0.5, 1.0), (2.0, 3.0)), RATE_HZ)
    first, second = refined([Timed("one", 0.5, 1.9, 1), Timed("two", 1.9, 2.9, 1)], sound)
    assert abs(first.end_s - 1.0) < 0.25
    assert abs(second.start_s - 2.0) < 0.15
    assert abs(second.end_s - 3.0) < 0.25


def test_a_word_after_a_gap_begins_with_its_sound():
    sound = sound_of(sounding((0.5, 1.0), (1.1, 2.0)), RATE_HZ)
    words = [Timed("one", 0.5, 1.0, 1), Timed("two", 1.35, 2.0, 1)]
    assert abs(refined(words, sound)[1].start_s - 1.1) < 0.06


def test_digital_silence_has_no_sound_and_moves_nothing():
    sound = sound_of(np.zeros(RATE_HZ, dtype=np.float32), RATE_HZ)
    words = [Timed("one", 0.1, 0.3, 1)]
    assert refined(words, sound) == words


@given(
    st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), max_size=12),
    st.lists(st.tuples(st.floats(0, 3.5), st.floats(0.1, 1.5)), max_size=4),
)
def test_times_are_always_in_order_and_within_the_window(times, spans):
    sound = sound_of(sounding(*[(a, min(4.0, a + d)) for a, d in spans]), RATE_HZ)
    words = [Timed("w", a, b, 1) for a, b in times]
    found = refined(words, sound)
    assert len(found) == len(words)
    before = 0.0
    for word in found:
        assert before <= word.start_s <= word.end_s <= sound.length_s
        before = word.end_s
