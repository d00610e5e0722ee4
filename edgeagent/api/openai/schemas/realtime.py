"""Sessions of `/v1/realtime`, in today's shape and in the older one of `transcription_session.update`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from edgeagent.api.http.field_support import IgnoredField
from edgeagent.api.openai.schemas.audio import MAX_KEYWORDS, Keyword
from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.speech.languages import language_code
from edgeagent.speech.live_options import LiveFormat, LiveOptions, TurnDetection
from edgeagent.speech.options import SpeechOptions

LOGPROBS = "item.input_audio_transcription.logprobs"
# The formats of today by name, and the older ones.
FORMATS: dict[str, LiveFormat] = {"audio/pcm": "pcm16", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}
OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
PCM_RATES_HZ = (16_000, 24_000)
G711_RATE_HZ = 8_000


class SessionPart(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AudioFormat(SessionPart):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | None = Field(None, description="16000 or 24000 samples a second, with audio/pcm")


class TurnDetectionBody(SessionPart):
    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = Field(0.5, ge=0, le=1, allow_inf_nan=False)
    prefix_padding_ms: int = Field(300, ge=0, le=2_000)
    silence_duration_ms: int = Field(500, ge=32, le=10_000)
    create_response: Annotated[bool | None, IgnoredField("nothing is answered")] = None
    interrupt_response: Annotated[bool | None, IgnoredField("nothing is answered")] = None
    idle_timeout_ms: Annotated[int | None, IgnoredField("nothing is answered")] = None
    eagerness: Annotated[str | None, IgnoredField("of semantic_vad")] = Field(None, max_length=20)

    def options(self) -> TurnDetection:
        """Raises: UnsupportedParameter."""
        if self.type == "semantic_vad":
            raise UnsupportedParameter(
                "`turn_detection` semantic_vad needs a model of turns, which is not here: use server_vad.",
                param="session.audio.input.turn_detection.type",
            )
        return TurnDetection(
            threshold=min(max(self.threshold, 0.01), 0.99),
            prefix_padding_ms=self.prefix_padding_ms,
            silence_duration_ms=self.silence_duration_ms,
        )


class TranscriptionPart(SessionPart):
    model: str | None = Field(None, max_length=200)
    language: str | None = Field(None, max_length=40)
    languages: list[str] = Field(default=[], max_length=100)
    prompt: str | None = Field(None, max_length=10_000)
    keywords: list[Keyword] = Field(default=[], max_length=MAX_KEYWORDS)
    delay: Annotated[str | None, IgnoredField("text is given out as soon as it is final")] = Field(
        None, max_length=20
    )

    def options(self, before: SpeechOptions) -> SpeechOptions:
        """Raises: InvalidParameter."""
        return msgspec.structs.replace(
            before,
            language=_code(self.language) if self.language else None,
            languages=tuple(_code(name) for name in self.languages),
            prompt=self.prompt or "",
            keywords=tuple(self.keywords),
        )


def _code(name: str) -> str:
    if (code := language_code(name)) is not None:
        return code
    raise InvalidParameter(
        f"Language {name!r} is not known: give a code such as en.",
        param="session.audio.input.transcription.language",
    )


class AudioInput(SessionPart):
    format: AudioFormat | None = None
    noise_reduction: Annotated[dict[str, Any] | None, IgnoredField("audio is heard as it is")] = (
        None
    )
    transcription: TranscriptionPart | None = None
    turn_detection: TurnDetectionBody | None = None


class AudioPart(SessionPart):
    input: AudioInput = AudioInput()


class SessionBody(SessionPart):
    """`session` of a `session.update`. What is left out stays as it is."""

    type: Literal["transcription"]
    audio: AudioPart = AudioPart()
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None


class OldSessionBody(SessionPart):
    """`session` of a `transcription_session.update`."""

    FIELDS: ClassVar[dict[str, str]] = {
        "input_audio_format": "format",
        "input_audio_transcription": "transcription",
        "input_audio_noise_reduction": "noise_reduction",
        "turn_detection": "turn_detection",
    }

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    input_audio_transcription: TranscriptionPart | None = None
    input_audio_noise_reduction: dict[str, Any] | None = None
    turn_detection: TurnDetectionBody | None = None
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None

    def today(self) -> SessionBody:
        """The same in today's shape; what was left out is left out."""
        given = self.model_dump(exclude_unset=True)
        audio = {self.FIELDS[name]: value for name, value in given.items() if name in self.FIELDS}
        if isinstance(old := audio.get("format"), str):
            audio["format"] = {"type": OLD_FORMATS[old]}
        body: dict[str, Any] = {"type": "transcription", "audio": {"input": audio}}
        if "include" in given:
            body["include"] = given["include"]
        return SessionBody.model_validate(body)


def changed(before: LiveOptions, session: SessionBody) -> LiveOptions:
    """The options after an update. Raises: InvalidParameter, UnsupportedParameter."""
    given = session.audio.input
    options = before
    if given.format is not None:
        options = _with_format(options, given.format)
    if "turn_detection" in given.model_fields_set:
        turns = given.turn_detection.options() if given.turn_detection is not None else None
        options = msgspec.structs.replace(options, turns=turns)
    speech = options.speech
    if given.transcription is not None:
        speech = given.transcription.options(speech)
    if "include" in session.model_fields_set:
        speech = msgspec.structs.replace(speech, has_logprobs=LOGPROBS in (session.include or ()))
    return msgspec.structs.replace(options, speech=speech)


def _with_format(before: LiveOptions, given: AudioFormat) -> LiveOptions:
    form = FORMATS[given.type]
    if form != "pcm16":
        if given.rate not in (None, G711_RATE_HZ):
            raise InvalidParameter(
                f"`rate` is {given.rate}, {given.type} has {G711_RATE_HZ}: leave it out.",
                param="session.audio.input.format.rate",
            )
        return msgspec.structs.replace(before, format=form, rate_hz=G711_RATE_HZ)
    rate_hz = given.rate or 24_000
    if rate_hz not in PCM_RATES_HZ:
        raise InvalidParameter(
            f"`rate` is {rate_hz}, it must be {' or '.join(map(str, PCM_RATES_HZ))}: resample the audio.",
            param="session.audio.input.format.rate",
        )
    return msgspec.structs.replace(before, format=form, rate_hz=rate_hz)
