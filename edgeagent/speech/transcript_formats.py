"""A transcript in the forms that clients ask for: OpenAI's JSON bodies, SubRip and WebVTT. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import msgspec

from edgeagent.speech.languages import language_name
from edgeagent.speech.segments import Segment, Transcript, Word

Format = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
Granularity = Literal["word", "segment"]

FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: dict[str, str] = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
# A caption is shown in one piece: two lines at most, and no longer than this.
CAPTION_CHARS, CAPTION_S = 84, 7.0


def rendered(
    transcript: Transcript, form: Format, granularities: Sequence[Granularity] = ()
) -> str:
    """A transcript in any of the formats."""
    match form:
        case "text":
            return as_text(transcript)
        case "srt":
            return as_srt(transcript)
        case "vtt":
            return as_vtt(transcript)
        case "verbose_json":
            return _json(as_verbose_json(transcript, granularities))
        case "diarized_json":
            return _json(as_diarized_json(transcript))
        case "json":
            return _json(as_json(transcript))


def _json(body: dict[str, Any]) -> str:
    return msgspec.json.encode(body).decode()


def as_json(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's `Transcription`, with the seconds that were heard as its usage."""
    body = {"text": transcript.text, "usage": usage(transcript)} | _id(transcript)
    scores = [score for segment in transcript.segments for score in segment.logprobs]
    if scores:
        body["logprobs"] = [
            {"token": score.token, "logprob": score.logprob, "bytes": score.bytes}
            for score in scores
        ]
    return body


def _id(transcript: Transcript) -> dict[str, Any]:
    return {"id": transcript.id} if transcript.id is not None else {}


def usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.duration_s, 3)}


def as_verbose_json(transcript: Transcript, granularities: Sequence[Granularity]) -> dict[str, Any]:
    """OpenAI's `TranscriptionVerbose`. Words where asked for; segments unless words alone were."""
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": language_name(transcript.language),
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        "usage": usage(transcript),
    } | _id(transcript)
    if not granularities or "segment" in granularities:
        body["segments"] = [_segment(i, s) for i, s in enumerate(transcript.segments)]
    if "word" in granularities:
        body["words"] = [_word(word) for word in transcript.words]
    return body


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": index,
        "seek": segment.seek,
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }
    if segment.speaker is not None:
        body["speaker"] = segment.speaker
    if segment.confidence is not None:
        body["confidence"] = round(segment.confidence, 4)
    return body


def _word(word: Word) -> dict[str, Any]:
    body: dict[str, Any] = {"word": word.text.strip(), "start": word.start_s, "end": word.end_s}
    body["confidence"] = word.confidence
    if word.speaker is not None:
        body["speaker"] = word.speaker
    return body


def as_diarized_json(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's `TranscriptionDiarized`; where no speakers are known, everything is said by A."""
    return {
        "task": transcript.task,
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        "segments": [diarized_segment(i, s) for i, s in enumerate(transcript.segments)],
        "usage": usage(transcript),
    } | _id(transcript)


def diarized_segment(index: int, segment: Segment) -> dict[str, Any]:
    """OpenAI's `TranscriptionDiarizedSegment`."""
    return {
        "id": f"seg_{index}",
        "type": "transcript.text.segment",
        "start": segment.start_s,
        "end": segment.end_s,
        "speaker": segment.speaker or "A",
        "text": segment.text.strip(),
    }


def as_text(transcript: Transcript) -> str:
    """The text on one line; with speakers, a line for each turn."""
    if not any(segment.speaker for segment in transcript.segments):
        return transcript.text + "\n"
    return "".join(f"{speaker}: {text}\n" for speaker, text in turns(transcript.segments))


def turns(segments: Sequence[Segment]) -> Iterator[tuple[str, str]]:
    """Who spoke and what, without a break in between."""
    speaker: str | None = None
    texts: list[str] = []
    for segment in segments:
        if segment.speaker != speaker and texts:
            yield speaker or "A", " ".join(texts)
            texts = []
        speaker = segment.speaker
        texts.append(segment.text.strip())
    if texts:
        yield speaker or "A", " ".join(texts)


def as_srt(transcript: Transcript) -> str:
    """SubRip."""
    cues = [
        f"{i}\n{_clock(start_s, ',')} --> {_clock(end_s, ',')}\n{_labelled(speaker, text)}\n"
        for i, (start_s, end_s, speaker, text) in enumerate(captions(transcript.segments), start=1)
    ]
    return "\n".join(cues)


def as_vtt(transcript: Transcript) -> str:
    """WebVTT, with a voice span for each speaker."""
    cues = [
        f"{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n{_voiced(speaker, text)}\n"
        for start_s, end_s, speaker, text in captions(transcript.segments)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def captions(segments: Sequence[Segment]) -> Iterator[tuple[float, float, str | None, str]]:
    """Start, end, speaker and text of each caption: segments, long ones cut between words."""
    for segment in segments:
        if not segment.words or _is_short(segment.words):
            yield segment.start_s, segment.end_s, segment.speaker, segment.text.strip()
            continue
        part: list[Word] = []
        for word in segment.words:
            if part and not _is_short([*part, word]):
                yield _caption(part, segment)
                part = []
            part.append(word)
        yield _caption(part, segment)


def _is_short(words: Sequence[Word]) -> bool:
    n_chars = sum(len(word.text) for word in words)
    return n_chars <= CAPTION_CHARS and words[-1].end_s - words[0].start_s <= CAPTION_S


def _caption(words: Sequence[Word], segment: Segment) -> tuple[float, float, str | None, str]:
    text = "".join(word.text for word in words).strip()
    return words[0].start_s, words[-1].end_s, segment.speaker, text


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    hours, minutes = ms // 3_600_000, ms // 60_000 % 60
    return f"{hours:02}:{minutes:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"


def _labelled(speaker: str | None, text: str) -> str:
    return f"{speaker}: {text}" if speaker else text


def _voiced(speaker: str | None, text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if not speaker:
        return text
    name = "".join(c for c in speaker if c not in "<>&\n\r")
    return f"<v {name}>{text}"
