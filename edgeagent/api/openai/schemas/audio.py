"""Bodies of `POST /v1/audio/transcriptions` and `/translations`: forms, so that numbers come as text."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import ConfigDict, Field, field_validator, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, RequestModel
from edgeagent.api.openai.schemas.stored_chats import Metadata
from edgeagent.errors import InvalidParameter
from edgeagent.speech.languages import language_code
from edgeagent.speech.options import TEMPERATURES, SpeechOptions
from edgeagent.speech.transcript_formats import Format, Granularity

MAX_KEYWORDS = 200
MAX_NAMES = 4
DIARIZING = "gpt-4o-transcribe-diarize"

Keyword = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
# Fields that are lists, written `name[]` or several times.
LISTS = frozenset(
    {
        "languages", "keywords", "timestamp_granularities", "include", "known_speaker_names",
        "known_speaker_references",
    }
)  # fmt: skip


class ServerVad(BodyModel):
    """OpenAI's voice detection, with all that the detector can do as extensions."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(
        300, ge=0, le=2000, description="heard before speech and after it"
    )
    silence_duration_ms: int = Field(
        160, ge=32, le=10_000, description="the silence that ends a stretch of speech"
    )
    threshold: float = Field(0.5, ge=0, le=1, allow_inf_nan=False)
    neg_threshold: Annotated[
        float | None, ExtensionField("speech ends below this; default: `threshold` less 0.15")
    ] = Field(None, ge=0, le=1, allow_inf_nan=False)
    min_speech_duration_ms: Annotated[int, ExtensionField("what is shorter is no speech")] = Field(
        100, ge=0, le=10_000
    )
    max_speech_duration_s: Annotated[float, ExtensionField("longer speech is cut")] = Field(
        24.0, ge=1, le=28, allow_inf_nan=False
    )

    def options(self) -> dict[str, Any]:
        return {
            "threshold": min(max(self.threshold, 0.01), 0.99),
            "neg_threshold": self.neg_threshold,
            "speech_pad_ms": self.prefix_padding_ms,
            "min_silence_duration_ms": self.silence_duration_ms,
            "min_speech_duration_ms": self.min_speech_duration_ms,
            "max_speech_duration_s": self.max_speech_duration_s,
        }


class SpeechFields(RequestModel):
    """What all requests about recordings have in common."""

    model: str | None = Field(
        None, max_length=200, description="a speech model; without it, the first that is installed"
    )
    prompt: str = Field("", max_length=10_000, description="text that precedes the recording")
    temperature: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 rises by itself where the text is improbable or repeats itself",
    )

    def temperatures(self) -> tuple[float, ...]:
        return (self.temperature,) if self.temperature else TEMPERATURES


class RecordingRequest(SpeechFields):
    """A form with a recording in it."""

    # Lax: everything in a form is text.
    model_config = ConfigDict(extra="forbid", strict=False)

    file: str = Field(
        description="the recording: flac, m4a, mp3, mp4, mpeg, mpga, ogg, opus, wav or webm",
        json_schema_extra={"format": "binary"},
    )


class TranscriptionFields(SpeechFields):
    """OpenAI's transcription request, of all its models together, apart from the recording and streams."""

    instead: ClassVar[dict[str, str]] = {
        "known_speaker_references": "voices are not compared here, and speakers are told apart by channel, "
        "in the order of `known_speaker_names`",
    }
    refused: ClassVar[dict[str, tuple[object, ...]]] = {"known_speaker_references": ([],)}

    response_format: Format = "json"
    language: str | None = Field(
        None, max_length=40, description="a code such as en; without it, found in each window"
    )
    languages: list[str] = Field(
        default=[], max_length=100, description="those among which the language is found"
    )
    keywords: list[Keyword] = Field(
        default=[], max_length=MAX_KEYWORDS, description="words to expect: names, drugs, terms"
    )
    timestamp_granularities: list[Granularity] = Field(default=[], max_length=2)
    include: list[Literal["logprobs", "segments"]] = Field(
        default=[],
        max_length=2,
        description="logprobs, with json; as an extension segments: a stream has all that is known of each",
    )
    chunking_strategy: Literal["auto"] | ServerVad | None = None
    known_speaker_names: list[Name] = Field(
        default=[],
        max_length=MAX_NAMES,
        description="of the speaker on each channel, in order, for a recording whose channels differ",
    )
    speakers: Annotated[
        Literal["channel", "none"] | None,
        ExtensionField("name the speaker of each word by its channel, in every format"),
    ] = None

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        return _code(value, "language") if value else None

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: list[str]) -> list[str]:
        return [_code(name, "languages") for name in value]

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise InvalidParameter(
                "`timestamp_granularities` needs `response_format` verbose_json, it is "
                f"{self.response_format}: change one of them.",
                param="timestamp_granularities",
            )
        if self.known_speaker_names and not self.has_speakers:
            raise InvalidParameter(
                "`known_speaker_names` needs `response_format` diarized_json or `speakers` channel: set one "
                "of them, or leave the names out.",
                param="known_speaker_names",
            )
        if "logprobs" in self.include and self.response_format != "json":
            raise InvalidParameter(
                f"`include` logprobs needs `response_format` json, it is {self.response_format}: change one "
                "of them.",
                param="include",
            )
        if self.language and self.languages and self.language not in self.languages:
            raise InvalidParameter(
                f"`language` {self.language} is not among `languages`: leave one of them out.",
                param="language",
            )
        return self

    @property
    def has_speakers(self) -> bool:
        """Whether speakers are to be told apart."""
        if self.speakers is not None:
            return self.speakers == "channel"
        return self.response_format == "diarized_json" or self.model == DIARIZING

    def options(self) -> SpeechOptions:
        """What the model is asked for."""
        vad = self.chunking_strategy
        by_channel = self.has_speakers
        needs_words = by_channel or self.response_format in ("verbose_json", "srt", "vtt")
        return SpeechOptions(
            language=self.language,
            languages=tuple(self.languages),
            prompt=self.prompt,
            keywords=tuple(self.keywords),
            temperatures=self.temperatures(),
            has_words=needs_words or bool(self.include),
            has_logprobs="logprobs" in self.include,
            speakers="channel" if by_channel else "none",
            speaker_names=tuple(self.known_speaker_names),
            vad=vad.options() if isinstance(vad, ServerVad) else {},
        )


class TranscriptionBody(RecordingRequest, TranscriptionFields):
    """OpenAI's transcription request as a form."""

    # Said again, since the last base would decide.
    model_config = ConfigDict(extra="forbid", strict=False)

    stream: bool = Field(False, description="events; with srt, vtt and verbose_json it is ignored")
    store: Annotated[
        bool,
        ExtensionField(
            "keep the transcript, not the recording: it has an `id`, and GET /v1/audio/transcripts shows it"
        ),
    ] = False
    metadata: Annotated[
        Metadata | None, ExtensionField("with `store`: `metadata[subject]` says whom it is about")
    ] = None

    @property
    def is_stream(self) -> bool:
        return self.stream and self.response_format in ("json", "text", "diarized_json")

    def options(self) -> SpeechOptions:
        found = super().options()
        return msgspec.structs.replace(found, has_words=found.has_words or self.store)


class TranslationBody(RecordingRequest):
    """OpenAI's translation request: speech in any language to English text."""

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"

    def options(self) -> SpeechOptions:
        return SpeechOptions(
            task="translate", prompt=self.prompt, temperatures=self.temperatures(), has_words=True
        )


def _code(name: str, param: str) -> str:
    found = language_code(name)
    if found is None:
        raise InvalidParameter(
            f"`{param}` has {name[:40]!r}, which is no language that is known: send a code such as en.",
            param=param,
        )
    return found


class Logprob(BodyModel):
    token: str
    logprob: float
    bytes: list[int]


class DurationUsage(BodyModel):
    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionAnswer(BodyModel):
    """With the format json. Other formats: OpenAI's verbose and diarized bodies, or plain text."""

    text: str
    logprobs: list[Logprob] | None = None
    usage: DurationUsage
