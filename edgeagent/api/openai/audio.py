"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from litestar import Request, post
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation
from edgeagent.api.http.caller import origin_of
from edgeagent.api.http.forms import read_form
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.http.transcription_response import TranscriptionResponse
from edgeagent.api.openai.schemas.audio import (
    LISTS,
    RecordingRequest,
    TranscriptionAnswer,
    TranscriptionBody,
    TranslationBody,
)
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.transcript_writer import OpenAITranscriptWriter
from edgeagent.serving.transcript_archive import TranscriptArchive
from edgeagent.serving.transcription import Recording, TranscriptionService
from edgeagent.settings import Settings

Model = TypeVar("Model", bound=RecordingRequest)


async def read_recording(
    request: Request[Any, Any, Any], model: type[Model]
) -> tuple[Model, bytes]:
    """The fields of a form, and its file. Raises: BadRequest, InvalidParameter, ValidationError."""
    form = await read_form(request, LISTS)
    recording = form.file("file")
    return model.model_validate(form.fields | {"file": "file"}), recording


_RESPONSES = {
    200: response_doc(TranscriptionAnswer, description="The transcript, in the format asked for"),
    400: response_doc(ErrorBody, description="The request or the recording is not valid"),
    404: response_doc(ErrorBody, description="Unknown model, or none that transcribes"),
    413: response_doc(ErrorBody, description="The recording is too large or too long"),
    429: response_doc(ErrorBody, description="The queue is full, or a bound of the key is reached"),
    503: response_doc(ErrorBody, description="The model cannot answer now"),
}


@post(
    "/v1/audio/transcriptions",
    operation_class=body_operation(TranscriptionBody, "multipart/form-data"),
    operation_id="transcribe",
    summary="Turn speech into text",
    description=(
        "A recording as a form, and its text as json, text, srt, vtt, verbose_json (segments and words with "
        "times and confidence) or diarized_json (speakers by channel). A recording without speech has no "
        "text. One that is cut, damaged or no audio is a 400, one that is too long a 413, before anything is "
        "sent."
    ),
    tags=["audio"],
    status_code=200,
    responses=_RESPONSES,
)
async def transcribe(
    request: Request[Any, Any, Any],
    transcriptions: TranscriptionService,
    transcripts: TranscriptArchive,
    settings: Settings,
) -> ASGIApp:
    body, recording = await read_recording(request, TranscriptionBody)
    keep = None
    if body.store:
        await transcripts.check()
        keep = partial(transcripts.keep, metadata=body.metadata)
    decision = await transcriptions.model_for(body.model)
    wanted = Recording(recording, body.options())
    return TranscriptionResponse(
        transcriptions.transcribe(origin_of(request), decision, wanted),
        OpenAITranscriptWriter(
            body.response_format,
            body.timestamp_granularities,
            has_segments="segments" in body.include,
        ),
        keep=keep,
        is_stream=body.is_stream,
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


@post(
    "/v1/audio/translations",
    operation_class=body_operation(TranslationBody, "multipart/form-data"),
    operation_id="translate",
    summary="Turn speech in any language into English text",
    description="As transcriptions, for models that know other languages than English.",
    tags=["audio"],
    status_code=200,
    responses=_RESPONSES,
)
async def translate_speech(
    request: Request[Any, Any, Any], transcriptions: TranscriptionService, settings: Settings
) -> ASGIApp:
    body, recording = await read_recording(request, TranslationBody)
    decision = await transcriptions.model_for(body.model)
    return TranscriptionResponse(
        transcriptions.transcribe(
            origin_of(request), decision, Recording(recording, body.options())
        ),
        OpenAITranscriptWriter(body.response_format),
        is_stream=False,
        ping_interval_s=settings.http.ping_interval_s,
        write_timeout_s=settings.http.write_timeout_s,
    )


HANDLERS = (transcribe, translate_speech)
