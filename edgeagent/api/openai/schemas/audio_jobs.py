"""Bodies of `/v1/audio/jobs`: a transcription request as JSON, whose recording follows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import RequestModel
from edgeagent.api.openai.schemas.audio import TranscriptionFields
from edgeagent.api.openai.schemas.stored_chats import Metadata
from edgeagent.speech.options import SpeechOptions


class AudioJobBody(TranscriptionFields):
    """What OpenAI's transcription request has, apart from the file; the format is that of the result."""

    bytes: int = Field(ge=1, le=1 << 44, description="the size of the recording")
    name: Annotated[str | None, Field(max_length=200)] = Field(
        None, description="what the job is called in lists"
    )
    metadata: Metadata | None = Field(
        None, description="`subject` says whom the recording is about, for export and erasure"
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="translate: speech in any language to English text"
    )

    def speech(self) -> SpeechOptions:
        """What the model is asked for. Words are always kept, so that the result has every format."""
        return msgspec.structs.replace(self.options(), task=self.task, has_words=True)


class StartBody(RequestModel):
    sha256: str | None = Field(
        None,
        pattern="^[0-9A-Fa-f]{64}$",
        description="of the recording; another one that arrived is refused",
    )


class AudioJobError(BodyModel):
    code: str
    message: str


class AudioJobAnswer(BodyModel):
    """A job. `transcribed` of `duration` seconds are done; both are known once the recording was read."""

    id: str
    object: Literal["audio.job"] = "audio.job"
    created: int
    status: Literal["uploading", "queued", "running", "completed", "failed", "cancelled"]
    name: str | None
    metadata: dict[str, str]
    model: str
    task: Literal["transcribe", "translate"]
    language: str | None
    response_format: str
    bytes: int
    upload_offset: int | None
    audio_sha256: str | None
    duration: float | None
    transcribed: float | None
    segments: int
    transcript_id: str | None
    error: AudioJobError | dict[str, Any] | None
