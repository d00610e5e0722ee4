"""faster-whisper's model with an encoder that sees what there is. Worker side, one thread.

Whisper was trained on 30 s, and what is shorter is filled up with zeros, which take as long to compute as
speech. Its encoder takes any length: a shorter one has the first of the positions that it knows. A text that
repeats itself or is improbable then is heard again with all zeros, before any other temperature is tried.
Quick hearings of live turns have a length of their own (`turn_transcriber.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.transcribe import TranscriptionOptions
from numpy.typing import NDArray

FRAMES_PER_S = 100
# What the encoder sees at least, and behind the end of the sound.
MIN_S, MARGIN_S = 10.0, 2.0
# More than is said in a second, times included: a text that goes on is a loop.
MAX_TOKENS_PER_S = 8

Features = NDArray[np.float32]
# A result, its mean log probability, temperature and compression ratio.
Decoded = tuple[Any, float, float, float]


class ShortEncoderModel(WhisperModel):  # type: ignore[misc]
    """A model whose encoder leaves out most of the zeros behind a window."""

    # The features that were encoded last, and how many frames of them.
    _features: Features
    _n_encoded = 0

    def encode(self, features: Features) -> ctranslate2.StorageView:
        """Encode features (float32 [n_mels, n_frames], zeros behind the end of the sound)."""
        self._features, self._n_encoded = features, n_needed(features)
        return super().encode(features[..., : self._n_encoded])

    def encode_all(self, features: Features) -> ctranslate2.StorageView:
        """Encode features as they are, zeros included."""
        return super().encode(features)

    def generate_with_fallback(
        self,
        encoder_output: ctranslate2.StorageView,
        prompt: list[int],
        tokenizer: Any,
        options: TranscriptionOptions,
    ) -> Decoded:
        """The text of what was encoded last."""
        if self._n_encoded < self._features.shape[-1]:
            n_most = round(MAX_TOKENS_PER_S * self._n_encoded / FRAMES_PER_S)
            n_most = min(n_most, self.max_length - len(prompt))
            once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=n_most)
            found: Decoded = super().generate_with_fallback(encoder_output, prompt, tokenizer, once)
            result, avg_logprob, _, compression_ratio = found
            is_whole = len(result.sequences_ids[0]) < n_most
            if is_whole and is_sound(
                avg_logprob, compression_ratio, result.no_speech_prob, options
            ):
                return found
            encoder_output = self.encode_all(self._features)
        again: Decoded = super().generate_with_fallback(encoder_output, prompt, tokenizer, options)
        return again


def is_sound(
    avg_logprob: float, compression_ratio: float, no_speech_prob: float, options: Any
) -> bool:
    """Whether a text is taken at the first temperature: it is probable and does not repeat itself, or the
    model takes what it heard for silence."""
    most, least = options.compression_ratio_threshold, options.log_prob_threshold
    is_improbable = least is not None and avg_logprob < least
    silent = options.no_speech_threshold
    if is_improbable and silent is not None and no_speech_prob > silent:
        return True
    return not is_improbable and (most is None or compression_ratio <= most)


def n_needed(features: Features) -> int:
    """How many frames of these features the encoder has to see: an even number, two are one position."""
    sounding = np.flatnonzero(features.any(axis=-2))
    n_sounding = int(sounding[-1]) + 1 if len(sounding) else 0
    wanted = max(n_sounding + round(FRAMES_PER_S * MARGIN_S), round(FRAMES_PER_S * MIN_S))
    return min(int(features.shape[-1]), wanted + wanted % 2)
