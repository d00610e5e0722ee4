"""A live transcription in the words of OpenAI's realtime API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from edgeagent.api.http.dialects import OPENAI
from edgeagent.api.http.errors import status_of
from edgeagent.api.openai.schemas.realtime import FORMATS, LOGPROBS, OLD_FORMATS
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.live_events import (
    Cleared,
    Committed,
    Completed,
    Delta,
    Failed,
    LiveEvent,
    Refused,
    SegmentHeard,
    SpeechStarted,
    SpeechStopped,
)
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.segments import TokenScore
from edgeagent.types.ids import new_id

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_BUFFER = "input_audio_buffer"
SPEAKER = "A"  # one stream has one channel, and voices are not compared
_NAMES = {form: name for name, form in FORMATS.items()}
_OLD_NAMES = {name: old for old, name in OLD_FORMATS.items()}


class RealtimeWriter:
    """The events of one session as JSON. `is_old`: in the shape of the beta."""

    def __init__(self, *, is_old: bool = False) -> None:
        self.session_id = new_id("sess")
        self._is_old = is_old

    def session(
        self, what: str, options: LiveOptions, model: str, *, is_old: bool | None = None
    ) -> str:
        """`what`: created or updated."""
        if self._is_old if is_old is None else is_old:
            body = self._old_session(options, model)
            return _event(f"transcription_session.{what}", session=body)
        return _event(f"session.{what}", session=self._session(options, model))

    def _session(self, options: LiveOptions, model: str) -> dict[str, Any]:
        form: dict[str, Any] = {"type": _NAMES[options.format]}
        if options.format == "pcm16":
            form["rate"] = options.rate_hz
        return {
            "id": self.session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": form,
                    "noise_reduction": None,
                    "transcription": _transcription(options, model),
                    "turn_detection": _turns(options),
                }
            },
            "include": [LOGPROBS] if options.speech.has_logprobs else None,
        }

    def _old_session(self, options: LiveOptions, model: str) -> dict[str, Any]:
        return {
            "id": self.session_id,
            "object": "realtime.transcription_session",
            "input_audio_format": _OLD_NAMES[_NAMES[options.format]],
            "input_audio_transcription": _transcription(options, model),
            "input_audio_noise_reduction": None,
            "turn_detection": _turns(options),
            "include": [LOGPROBS] if options.speech.has_logprobs else None,
        }

    def error(self, error: EdgeAgentError, event_id: str | None = None) -> str:
        """An error that ends nothing."""
        return _event("error", error=_body(error) | {"event_id": event_id})

    def event(self, event: LiveEvent) -> str:
        match event:
            case SpeechStarted(item_id, at_s):
                return _event(
                    f"{_BUFFER}.speech_started", item_id=item_id, audio_start_ms=_ms(at_s)
                )
            case SpeechStopped(item_id, at_s):
                return _event(f"{_BUFFER}.speech_stopped", item_id=item_id, audio_end_ms=_ms(at_s))
            case Committed(item_id, previous_id):
                return _event(f"{_BUFFER}.committed", item_id=item_id, previous_item_id=previous_id)
            case Cleared():
                return _event(f"{_BUFFER}.cleared")
            case Delta(item_id, text):
                return _of_item("delta", item_id, delta=text)
            case SegmentHeard(item_id, index, text, start_s, end_s):
                return _of_item(
                    "segment", item_id, id=f"seg_{item_id.removeprefix('item_')}_{index}", text=text,
                    speaker=SPEAKER, start=round(start_s, 3), end=round(end_s, 3),
                )  # fmt: skip
            case Completed():
                return _completed(event)
            case Failed(item_id, error):
                return _of_item("failed", item_id, error=_body(error))
            case Refused(error):
                return self.error(error)


def _completed(event: Completed) -> str:
    more: dict[str, Any] = {}
    if event.logprobs:
        more["logprobs"] = _scores(event.logprobs)
    return _of_item(
        "completed", event.item_id, transcript=event.text.strip(),
        usage={"type": "duration", "seconds": round(event.seconds, 3)}, **more,
    )  # fmt: skip


def _scores(scores: Iterable[TokenScore]) -> list[dict[str, Any]]:
    return [{"token": s.token, "logprob": s.logprob, "bytes": s.bytes} for s in scores]


def _transcription(options: LiveOptions, model: str) -> dict[str, Any]:
    speech = options.speech
    body: dict[str, Any] = {"model": model, "language": speech.language, "prompt": speech.prompt}
    if speech.languages:
        body["languages"] = list(speech.languages)
    if speech.keywords:
        body["keywords"] = list(speech.keywords)
    return body


def _turns(options: LiveOptions) -> dict[str, Any] | None:
    if options.turns is None:
        return None
    return {"type": "server_vad", **msgspec.to_builtins(options.turns)}


def _of_item(kind: str, item_id: str, **fields: Any) -> str:
    return _event(f"{_TRANSCRIPTION}.{kind}", item_id=item_id, content_index=0, **fields)


def _body(error: EdgeAgentError) -> dict[str, Any]:
    body: dict[str, Any] = OPENAI.error(error, status_of(error), "")["error"]
    return body


def _event(kind: str, **fields: Any) -> str:
    return msgspec.json.encode({"type": kind, "event_id": new_id("event")} | fields).decode()


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
