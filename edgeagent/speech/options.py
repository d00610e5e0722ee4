"""How one recording is to be transcribed: plain data, for the worker and the daemon alike."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# Tried one after another while a window's text is improbable or repeats itself.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class SpeechOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All that a caller can choose.

    `language`: a code of two letters, or None to detect it in each window; among `languages` only, where
    these are given. `prompt` is text that precedes the recording; `keywords` are words to expect.
    `speakers`: by channel where the channels differ ("channel"), or no speakers ("none"). `vad` has fields
    of `VadOptions`; None as a whole hears everything as speech.
    """

    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = TEMPERATURES
    beam_size: int = 5
    has_words: bool = True
    has_logprobs: bool = False
    speakers: Literal["channel", "none"] = "none"
    speaker_names: tuple[str, ...] = ()
    vad: dict[str, Any] | None = msgspec.field(default_factory=dict)
    is_conditioned: bool = True
    no_speech_threshold: float = 0.6
    logprob_threshold: float = -1.0
    compression_ratio_threshold: float = 2.4
