"""What a Wyoming client asks for, as options of a live session."""

from __future__ import annotations

from typing import Any

from edgeagent.errors import InvalidParameter
from edgeagent.speech.languages import language_code
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.options import SpeechOptions

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 48_000
MAX_TERMS, MAX_TERM_CHARS = 200, 100


def speech_options(data: dict[str, Any]) -> SpeechOptions:
    """Of a `transcribe` event: language, names and terms to expect. Raises: InvalidParameter."""
    language = data.get("language")
    code = None
    if isinstance(language, str) and language and (code := language_code(language)) is None:
        raise InvalidParameter(
            f"Language {language[:40]!r} is not known: give a code such as en.", param="language"
        )
    return SpeechOptions(language=code, keywords=_terms(data))


def _terms(data: dict[str, Any]) -> tuple[str, ...]:
    """Names before terms, since they matter more."""
    found = []
    for name in ("transcript_names", "transcript_terms"):
        given = data.get(name) or []
        if not isinstance(given, list) or not all(isinstance(term, str) for term in given):
            raise InvalidParameter(f"`{name}` is no list of words.", param=name)
        found += [term.strip()[:MAX_TERM_CHARS] for term in given if term.strip()]
    return tuple(found[:MAX_TERMS])


def live_options(speech: SpeechOptions, data: dict[str, Any]) -> LiveOptions:
    """Of an `audio-start` event: one channel of 16 bits. Raises: InvalidParameter."""
    rate_hz, width, channels = (data.get(name) for name in ("rate", "width", "channels"))
    if width != 2 or channels != 1:
        raise InvalidParameter(
            f"The audio has {str(channels)[:20]} channels of {str(width)[:20]} bytes, it must have 1 of 2: "
            "convert it.",
            param="channels" if width == 2 else "width",
        )
    if not isinstance(rate_hz, int) or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InvalidParameter(
            f"`rate` is {str(rate_hz)[:20]}, it must be {MIN_RATE_HZ} to {MAX_RATE_HZ}: resample the audio.",
            param="rate",
        )
    return LiveOptions(rate_hz=rate_hz, speech=speech, turns=None)
