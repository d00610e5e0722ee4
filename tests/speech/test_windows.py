"""Speech found in probabilities, packed into windows, and times led back to the recording."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import InvalidParameter
from edgeagent.speech.vad import (
    RATE_HZ,
    STEP,
    SpeechProbability,
    Stretch,
    StretchFinder,
    VadOptions,
)
from edgeagent.speech.windows import WINDOW_S, Piece, Window, WindowMaker, mixed
from tests.speech.recordings import TURNS, dialogue


def stretches(pattern: str, **options: object) -> list[tuple[int, int]]:
    """Speech is "x", doubt "o" and silence "."; the stretches found, in steps."""
    finder = StretchFinder(VadOptions(min_speech_duration_ms=0, **options))  # type: ignore[arg-type]
    levels = np.array([{"x": 0.9, "o": 0.4, ".": 0.1}[c] for c in pattern], dtype=np.float32)
    found = [*finder.feed(levels[:7]), *finder.feed(levels[7:], is_last=True)]
    return [(s.start // STEP, s.end // STEP) for s in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("..........", []),
        ("..xxxx......", [(2, 6)]),
        ("..xx.xx......", [(2, 7)]),  # a pause shorter than 160 ms
        ("xxx.....xxx", [(0, 3), (8, 11)]),
        ("xxooooooooxx", [(0, 12)]),  # between the thresholds speech goes on
        ("oooo", []),
        ("xx....", [(0, 2)]),
    ],
)
def test_stretches_of_speech(pattern, expected):
    assert stretches(pattern) == expected


def test_the_silence_that_ends_speech_can_be_chosen():
    assert stretches("xxx.....xxx", min_silence_duration_ms=320) == [(0, 11)]


def test_speech_without_end_is_cut_where_it_is_least_likely():
    pattern = "x" * 50 + "o" + "x" * 60
    assert stretches(pattern, max_speech_duration_s=2.0)[0] == (0, 50)


def test_what_is_too_short_is_no_speech():
    finder = StretchFinder(VadOptions(min_speech_duration_ms=200))
    levels = np.array([0.9, 0.9, 0.9] + [0.1] * 9, dtype=np.float32)
    assert list(finder.feed(levels, is_last=True)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 1.5), ("speech_pad_ms", -1), ("min_silence_duration_ms", 10**6)],
)
def test_options_out_of_bounds_are_refused_by_name(name, value):
    with pytest.raises(InvalidParameter, match=name):
        VadOptions(**{name: value})


def test_an_end_above_the_beginning_is_refused():
    with pytest.raises(InvalidParameter, match="neg_threshold"):
        VadOptions(threshold=0.4, neg_threshold=0.5)


def test_probabilities_do_not_depend_on_how_the_recording_is_cut():
    samples = dialogue().mean(axis=0)
    whole = SpeechProbability().feed(samples, is_last=True)
    model = SpeechProbability()
    parts = [model.feed(samples[i : i + 4321], is_last=False) for i in range(0, len(samples), 4321)]
    parts.append(model.feed(samples[:0], is_last=True))
    assert np.allclose(np.concatenate(parts), whole, atol=1e-4)


def test_the_turns_of_the_dialogue_are_found():
    maker = WindowMaker(VadOptions())
    (window,) = maker.feed(dialogue(), is_last=True)
    for turn in TURNS:
        inside = [
            s for s in window.stretches
            if s.start / RATE_HZ < turn["end_s"] and s.end / RATE_HZ > turn["start_s"]
        ]  # fmt: skip
        spoken = sum(s.end - s.start for s in inside) / RATE_HZ
        assert spoken > 0.7 * (turn["end_s"] - turn["start_s"])


class Scripted:
    """Probabilities that a test gives, a step each."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self._probabilities, self._n = probabilities, 0

    def feed(self, samples: np.ndarray, *, is_last: bool = False) -> np.ndarray:
        start, self._n = self._n, self._n + len(samples) // STEP
        return self._probabilities[start : self._n]


@given(st.lists(st.tuples(st.integers(5, 400), st.integers(6, 150)), min_size=1, max_size=25))
def test_windows_hold_all_speech_once_and_are_never_too_long(spans):
    probabilities = np.concatenate(
        [np.concatenate((np.full(a, 0.9), np.full(b, 0.01))) for a, b in spans]
    ).astype(np.float32)
    maker = WindowMaker(VadOptions(min_speech_duration_ms=0))
    maker._probability = Scripted(probabilities)  # type: ignore[assignment]
    samples = np.arange(len(probabilities) * STEP, dtype=np.float32)[None]
    size = 300 * STEP
    cuts = range(0, samples.shape[1], size)
    windows = [
        w
        for i in cuts
        for w in maker.feed(samples[:, i : i + size], is_last=i + size >= samples.shape[1])
    ]
    heard = np.zeros(len(probabilities), dtype=int)
    for window in windows:
        assert len(window.samples) <= (WINDOW_S + 1) * RATE_HZ
        for piece in window.pieces:
            assert (
                window.samples[piece.at : piece.at + piece.n] == samples[0, piece.start : piece.end]
            ).all()
        for stretch in window.stretches:
            heard[stretch.start // STEP : stretch.end // STEP] += 1
            assert any(p.start <= stretch.start and stretch.end <= p.end for p in window.pieces)
    assert (heard[probabilities > 0.5] == 1).all()
    starts = [window.pieces[0].start for window in windows]
    assert starts == sorted(starts)


def test_times_are_led_back_within_the_piece_that_holds_their_middle():
    window = Window(
        np.zeros(48_000, dtype=np.float32),
        np.zeros((1, 48_000), dtype=np.float32),
        (Piece(16_000, 32_000, 0), Piece(160_000, 192_000, 16_000)),
        (Stretch(16_000, 32_000), Stretch(160_000, 192_000)),
    )
    assert window.original_s(0.2, 0.4) == pytest.approx((1.2, 1.4))
    assert window.original_s(1.2, 1.4) == pytest.approx((10.2, 10.4))
    assert window.original_s(0.9, 1.3) == pytest.approx((10.0, 10.3))
    assert window.original_s(0.6, 1.2) == pytest.approx((1.6, 2.0))
    assert window.sample_at(10.5) == 24_000


def test_the_noise_of_a_silent_channel_is_not_mixed_in():
    """Two speakers in turn, each channel with a noise of its own."""
    rng = np.random.default_rng(5)
    n = 2 * RATE_HZ
    tone = np.sin(np.arange(n) * 2 * np.pi * 300 / RATE_HZ)
    first = np.arange(n) < n // 2
    voices = 0.3 * np.stack([np.where(first, tone, 0), np.where(first, 0, tone)])
    noise = rng.normal(0, 0.01, (2, n))
    mix = mixed((voices + noise).astype(np.float32))
    inside = np.r_[RATE_HZ // 4 : n // 2 - RATE_HZ // 4, n // 2 + RATE_HZ // 4 : n - RATE_HZ // 4]
    clean, found = voices.sum(axis=0)[inside], mix[inside]
    scale = found @ clean / (clean @ clean)
    left = np.std(found / scale - clean)
    mean = (voices + noise).mean(axis=0)[inside] * 2 - clean
    assert left < 0.8 * np.std(mean)
    assert scale > 0.9  # and the voice is not halved


@given(st.integers(0, 3 * 160 + 7), st.integers(2, 4))
def test_equal_channels_give_their_mean(n: int, n_channels: int):
    sound = np.random.default_rng(n).normal(0, 0.2, n).astype(np.float32)
    mix = mixed(np.stack([sound] * n_channels))
    assert mix.shape == (n,) and mix.dtype == np.float32
    assert np.allclose(mix, sound, atol=1e-6)


def test_a_mix_is_never_louder_than_its_loudest_channel():
    sound = np.random.default_rng(1).uniform(-1, 1, (3, 5000)).astype(np.float32)
    assert np.all(np.abs(mixed(sound)) <= np.abs(sound).max(axis=0) + 1e-6)
