"""What the encoder sees of a window: the sound and a margin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.transcribe import TranscriptionOptions

from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.short_encoder import (
    FRAMES_PER_S,
    MARGIN_S,
    MAX_TOKENS_PER_S,
    MIN_S,
    ShortEncoderModel,
    is_sound,
    n_needed,
)
from edgeagent.speech.transcriber import Transcriber, survey
from edgeagent.speech.whisper import Whisper
from tests.conftest import N_THREADS
from tests.speech.recordings import DIALOGUE

FULL = 30 * FRAMES_PER_S
LEAST, MARGIN = round(MIN_S * FRAMES_PER_S), round(MARGIN_S * FRAMES_PER_S)


@pytest.mark.parametrize(
    ("n_sounding", "n_needed_"),
    [
        (0, LEAST),
        (1, LEAST),
        (LEAST - MARGIN, LEAST),
        (LEAST - MARGIN + 1, LEAST + 2),
        (2000, 2000 + MARGIN),
        (2001, 2002 + MARGIN),
        (FULL - MARGIN, FULL),
        (FULL - 1, FULL),
        (FULL, FULL),
    ],
)
def test_the_encoder_sees_the_sound_and_a_margin(n_sounding, n_needed_):
    features = np.zeros((80, FULL), dtype=np.float32)
    features[3, :n_sounding] = -0.5
    assert n_needed(features) == n_needed_


def test_silence_within_a_window_is_part_of_it():
    features = np.zeros((80, FULL), dtype=np.float32)
    features[:, 1999] = 1.0
    assert n_needed(features) == 2000 + MARGIN


def test_a_recording_of_ten_seconds_is_not_computed_as_thirty(monkeypatch, whisper_dir: Path):
    encoded: list[int] = []
    encode = WhisperModel.encode

    def spied(self: WhisperModel, features: np.ndarray) -> object:
        encoded.append(features.shape[-1])
        return encode(self, features)

    monkeypatch.setattr(WhisperModel, "encode", spied)
    transcriber = Transcriber(Whisper(whisper_dir, n_threads=N_THREADS))
    data = DIALOGUE.read_bytes()
    known = survey(data)
    found = list(transcriber.transcribe(data, SpeechOptions(), known))
    assert any(window is not None and window.segments for window in found)
    assert encoded and max(encoded) <= FRAMES_PER_S * max(MIN_S, known.duration_s + MARGIN_S + 0.1)


GUARDS = SimpleNamespace(
    compression_ratio_threshold=2.4, log_prob_threshold=-1.0, no_speech_threshold=0.6
)
NO_GUARDS = SimpleNamespace(
    compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None
)


@pytest.mark.parametrize(
    ("avg_logprob", "compression_ratio", "no_speech_prob", "guards", "expected"),
    [
        (-0.3, 1.5, 0.1, GUARDS, True),
        (-0.3, 2.5, 0.1, GUARDS, False),  # repeats itself
        (-1.1, 1.5, 0.1, GUARDS, False),  # improbable
        (-1.1, 1.5, 0.7, GUARDS, True),  # silence
        (-9.0, 9.0, 0.1, NO_GUARDS, True),
    ],
)
def test_a_text_is_sound(avg_logprob, compression_ratio, no_speech_prob, guards, expected):
    assert is_sound(avg_logprob, compression_ratio, no_speech_prob, guards) is expected


class Decoding:
    """Stands for the library's encoder and decoder; every text after the first is sound."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_tokens: int, ratio: float) -> None:
        self.encoded: list[int] = []
        self.asked: list[tuple[Any, list[float], int | None]] = []
        self._found = [(n_tokens, ratio), (50, 1.5)]
        monkeypatch.setattr(WhisperModel, "encode", lambda model, features: self._encode(features))
        monkeypatch.setattr(
            WhisperModel, "generate_with_fallback", lambda model, *given: self._generate(*given)
        )
        self.model = ShortEncoderModel.__new__(ShortEncoderModel)
        self.model.max_length = 448

    def _encode(self, features: Any) -> int:
        self.encoded.append(features.shape[-1])
        return len(self.encoded)

    def _generate(self, encoded: int, prompt: Any, tokenizer: Any, options: Any) -> Any:
        self.asked.append((encoded, options.temperatures, options.max_new_tokens))
        n_tokens, ratio = self._found.pop(0)
        result = SimpleNamespace(sequences_ids=[[0] * n_tokens], no_speech_prob=0.0)
        return result, -0.3, options.temperatures[0], ratio

    def heard(self, n_sounding: int) -> Any:
        features = np.zeros((80, FULL), dtype=np.float32)
        features[:, :n_sounding] = 1.0
        options = TranscriptionOptions(
            **dict.fromkeys(TranscriptionOptions.__dataclass_fields__)
            | vars(GUARDS)
            | {"temperatures": [0.0, 0.2]}
        )
        encoded = self.model.encode(features)
        return self.model.generate_with_fallback(encoded, [0] * 100, None, options)


N_MOST = 18 * MAX_TOKENS_PER_S


@pytest.mark.parametrize(
    ("n_tokens", "ratio", "n_times"),
    [
        (60, 1.5, 1),
        (60, 2.5, 2),  # repeats itself
        (N_MOST, 1.5, 2),  # does not end
    ],
)
def test_a_doubtful_text_is_heard_again_on_thirty_seconds(monkeypatch, n_tokens, ratio, n_times):
    decoding = Decoding(monkeypatch, n_tokens, ratio)
    decoding.heard(1600)
    assert decoding.encoded == [1800, FULL][:n_times]
    # Other temperatures are for the whole alone.
    assert decoding.asked == [(1, [0.0], N_MOST), (2, [0.0, 0.2], None)][:n_times]


def test_a_full_window_is_heard_as_ever(monkeypatch):
    decoding = Decoding(monkeypatch, 60, 9.0)
    decoding.heard(FULL - 10)
    assert (decoding.encoded, decoding.asked) == ([FULL], [(1, [0.0, 0.2], None)])
