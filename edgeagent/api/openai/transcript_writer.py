"""A transcript in the words of OpenAI's audio endpoints: whole in six formats, or as events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from edgeagent.api.http.dialects import OPENAI
from edgeagent.api.http.errors import status_of
from edgeagent.errors import EdgeAgentError
from edgeagent.speech import transcript_formats
from edgeagent.speech.segments import Segment, TokenScore, Transcript

_encode = msgspec.json.encode


class OpenAITranscriptWriter:
    """One for each response."""

    def __init__(
        self,
        response_format: transcript_formats.Format,
        granularities: Sequence[transcript_formats.Granularity] = (),
        *,
        has_segments: bool = False,
    ) -> None:
        self._has_segments = has_segments
        self._format = response_format
        self._granularities = granularities
        self._n_segments = 0
        self._has_text = False
        kind = transcript_formats.MEDIA_TYPES.get(response_format, "application/json")
        self.content_type = kind.encode()

    def whole(self, transcript: Transcript) -> bytes:
        return transcript_formats.rendered(transcript, self._format, self._granularities).encode()

    def opening(self, transcript: Transcript) -> bytes:
        """What a stream begins with where segments are asked for: how long the recording is."""
        if not self._has_segments:
            return b""
        return _event({"type": "transcript.created", "duration": transcript.duration_s})

    def events(self, segments: Iterable[Segment], language: str) -> bytes:
        """A delta for each segment, and with speakers the segment itself."""
        found = []
        for segment in segments:
            if self._format == "diarized_json" or self._has_segments:
                found.append(_event(self._segment(segment, language)))
            found.append(_event(self._delta(segment)))
            self._n_segments += 1
        return b"".join(found)

    def _segment(self, segment: Segment, language: str) -> dict[str, Any]:
        event = transcript_formats.diarized_segment(self._n_segments, segment)
        if self._has_segments:
            event |= {"segment": msgspec.to_builtins(segment), "language": language}
        return event

    def _delta(self, segment: Segment) -> dict[str, Any]:
        """Deltas add up to the text."""
        text = segment.text if self._has_text else segment.text.lstrip()
        if self._has_text and segment.speaker is not None and not text.startswith(" "):
            text = f" {text}"
        self._has_text = self._has_text or bool(text)
        event: dict[str, Any] = {"type": "transcript.text.delta", "delta": text}
        if self._format == "diarized_json":
            event["segment_id"] = f"seg_{self._n_segments}"
        if segment.logprobs:
            event["logprobs"] = _scores(segment.logprobs)
        return event

    def last_events(self, transcript: Transcript) -> bytes:
        event: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
        if transcript.id is not None:
            event["id"] = transcript.id
        scores = [score for segment in transcript.segments for score in segment.logprobs]
        if scores:
            event["logprobs"] = _scores(scores)
        return _event(event) + b"data: [DONE]\n\n"

    def error_events(self, error: EdgeAgentError) -> bytes:
        return b"data: " + _encode(OPENAI.error(error, status_of(error), "")) + b"\n\n"


def _scores(scores: Iterable[TokenScore]) -> list[dict[str, Any]]:
    return [{"token": s.token, "logprob": s.logprob, "bytes": s.bytes} for s in scores]


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"
