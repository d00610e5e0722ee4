"""`POST /v1/audio/jobs` and below: transcription of long recordings, with uploads that can be resumed.

An extension. The upload has the shape of tus 1.0 (`PATCH` with `Upload-Offset`, `HEAD` for the offset):
one number is all that a client must remember, where OpenAI's uploads need the ids of all parts and would
keep an audio file that is larger than a part in several objects.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from litestar import Response, delete, get, patch, post
from litestar.params import Parameter
from litestar.types import ASGIApp

from edgeagent.api.http import encodings
from edgeagent.api.http.background_stream import BackgroundStreamResponse
from edgeagent.api.http.body import beside, body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of, origin_of
from edgeagent.api.http.one_shot_response import JsonResponse
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.audio_jobs import AudioJobAnswer, AudioJobBody, StartBody
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.errors import InvalidParameter
from edgeagent.serving.audio_job import JobOptions, shown
from edgeagent.serving.audio_jobs import AudioJobs, JobSpec
from edgeagent.serving.transcription import TranscriptionService
from edgeagent.settings import Settings
from edgeagent.speech import transcript_formats
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["audio"]
_ABSENT = {404: response_doc(ErrorBody, description="There is no such job of this key's owner")}
_JOB = {200: response_doc(AudioJobAnswer, description="The job")} | _ABSENT
_CONFLICT = {409: response_doc(ErrorBody, description="The job is in another state, or not stored")}
_BOUNDS = {
    413: response_doc(ErrorBody, description="The recording is larger than allowed or announced"),
    429: response_doc(ErrorBody, description="Too many open jobs, or too many bytes of recordings"),
    507: response_doc(ErrorBody, description="The disk is full"),
}


@post(
    "/v1/audio/jobs",
    operation_class=body_operation(AudioJobBody),
    operation_id="create_audio_job",
    summary="Create a job for a long recording",
    description=(
        "As a transcription, with `bytes`, the size of the recording, which is then sent in parts by PATCH "
        "/v1/audio/jobs/{job_id}/recording, and started by POST /v1/audio/jobs/{job_id}/start."
    ),
    tags=_TAGS,
    status_code=201,
    responses={201: response_doc(AudioJobAnswer, description="The job")} | _CONFLICT | _BOUNDS,
)
async def create_audio_job(
    request: ApiRequest, transcriptions: TranscriptionService, audio_jobs: AudioJobs
) -> ASGIApp:
    body = await read_body(request, AudioJobBody)
    origin = origin_of(request)
    decision = await transcriptions.model_for(body.model)
    spec = JobSpec(
        model=decision.model_id,
        n_bytes=body.bytes,
        options=JobOptions(
            speech=body.speech(),
            audio_s_per_day=origin.audio_s_per_day,
            response_format=body.response_format,
            granularities=tuple(body.timestamp_granularities),
        ),
        name=body.name,
        metadata=body.metadata,
    )
    row = await audio_jobs.create(origin, spec)
    return JsonResponse(shown(row), status=201)


@get(
    "/v1/audio/jobs",
    operation_id="list_audio_jobs",
    summary="List the jobs of this key's owner",
    tags=_TAGS,
)
async def list_audio_jobs(
    request: ApiRequest,
    audio_jobs: AudioJobs,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await audio_jobs.listed(caller_of(request).owner, page)
    return as_list([shown(row) for row in found.rows], found.has_more)


@get(
    "/v1/audio/jobs/{job_id:str}",
    operation_id="get_audio_job",
    summary="Show a job: status, and progress in seconds of audio",
    tags=_TAGS,
    responses=_JOB,
)
async def get_audio_job(request: ApiRequest, audio_jobs: AudioJobs, job_id: str) -> ASGIApp:
    return JsonResponse(shown(await audio_jobs.get(caller_of(request).owner, job_id)))


def _offsets(row: dict[str, Any], offset: int | None = None) -> dict[str, str]:
    received = row["n_received"] if offset is None else offset
    return {
        "Upload-Offset": str(row["n_bytes"] if received is None else received),
        "Upload-Length": str(row["n_bytes"]),
        "Cache-Control": "no-store",
    }


@get(
    "/v1/audio/jobs/{job_id:str}/recording",
    operation_id="get_audio_job_offset",
    summary="Ask how much of the recording has arrived (HEAD: in `Upload-Offset`)",
    tags=_TAGS,
    responses=_ABSENT,
)
async def get_audio_job_offset(
    request: ApiRequest, audio_jobs: AudioJobs, job_id: str
) -> Response[dict[str, Any]]:
    row = await audio_jobs.get(caller_of(request).owner, job_id)
    body = {"upload_offset": row["n_received"], "bytes": row["n_bytes"]}
    return Response(body, headers=_offsets(row))


@patch(
    "/v1/audio/jobs/{job_id:str}/recording",
    operation_id="append_to_audio_job",
    summary="Send the next part of the recording",
    description=(
        "The body is the part itself, as application/offset+octet-stream, at most `max_body_bytes`. "
        "`Upload-Offset` must be the end of what has arrived; the answer has the new one. After a break, "
        "HEAD tells where to go on."
    ),
    tags=_TAGS,
    status_code=204,
    responses=_ABSENT | _CONFLICT | _BOUNDS,
)
async def append_to_audio_job(
    request: ApiRequest, audio_jobs: AudioJobs, job_id: str
) -> Response[None]:
    offset = _offset_of(request)
    body = context_of(request.scope).body
    assert body is not None, "api/http/auth.py reads every body"
    data = bytes(await beside(body, encodings.decoded))
    owner = caller_of(request).owner
    received = await audio_jobs.append(owner, job_id, offset, data)
    headers = {"Upload-Offset": str(received), "Cache-Control": "no-store"}
    return Response(None, status_code=204, headers=headers)


def _offset_of(request: ApiRequest) -> int:
    value = request.headers.get("upload-offset", "")
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise InvalidParameter(
            f"The header Upload-Offset is {value[:40]!r}, the byte is needed at which this part begins: HEAD "
            "of the same address tells it.",
            param="Upload-Offset",
        )
    return int(value)


@post(
    "/v1/audio/jobs/{job_id:str}/start",
    operation_class=body_operation(StartBody),
    operation_id="start_audio_job",
    summary="Start a job whose recording is complete",
    tags=_TAGS,
    status_code=200,
    responses=_JOB | _CONFLICT,
)
async def start_audio_job(request: ApiRequest, audio_jobs: AudioJobs, job_id: str) -> ASGIApp:
    body = await read_body(request, StartBody)
    return JsonResponse(
        shown(await audio_jobs.start(caller_of(request).owner, job_id, body.sha256))
    )


@post(
    "/v1/audio/jobs/{job_id:str}/cancel",
    operation_id="cancel_audio_job",
    summary="Cancel a job and erase its recording; one that has ended is shown",
    tags=_TAGS,
    status_code=200,
    responses=_JOB,
)
async def cancel_audio_job(request: ApiRequest, audio_jobs: AudioJobs, job_id: str) -> ASGIApp:
    return JsonResponse(shown(await audio_jobs.cancel(caller_of(request).owner, job_id)))


@get(
    "/v1/audio/jobs/{job_id:str}/events",
    operation_id="follow_audio_job",
    summary="Follow a job: segments and progress as server-sent events",
    description=(
        "`audio.job.segment` with its index, `audio.job.progress` in seconds of audio, and at the end "
        "`audio.job.completed`, `.failed` or `.cancelled` with the job. After a break, `starting_after` is "
        "the index of the last segment that arrived."
    ),
    tags=_TAGS,
    responses=_ABSENT,
)
async def follow_audio_job(
    request: ApiRequest,
    audio_jobs: AudioJobs,
    settings: Settings,
    job_id: str,
    starting_after: Annotated[int | None, Parameter(ge=0, le=1 << 31)] = None,
) -> ASGIApp:
    caller = caller_of(request)
    follower = await audio_jobs.follow(caller.owner, job_id, caller.key_id)
    n_seen = 0 if starting_after is None else starting_after + 1
    return BackgroundStreamResponse(
        follower, n_seen, settings.http.ping_interval_s, settings.http.write_timeout_s
    )


@get(
    "/v1/audio/jobs/{job_id:str}/result",
    operation_id="get_audio_job_result",
    summary="The transcript of a completed job, in any format",
    description=(
        "Without `response_format`, in the format of the job. With `partial=true` also of a job that has not "
        "completed: what there is."
    ),
    tags=_TAGS,
    responses=_ABSENT | _CONFLICT,
)
async def get_audio_job_result(
    request: ApiRequest,
    audio_jobs: AudioJobs,
    job_id: str,
    response_format: transcript_formats.Format | None = None,
    timestamp_granularities: Annotated[
        list[transcript_formats.Granularity] | None, Parameter(description="with verbose_json")
    ] = None,
    partial: bool = False,
) -> Response[bytes]:
    owner = caller_of(request).owner
    transcript, options = await audio_jobs.transcript(owner, job_id, is_partial=partial)
    form = response_format or options.response_format
    granularities = tuple(timestamp_granularities or options.granularities)
    kind = transcript_formats.MEDIA_TYPES.get(form, "application/json")
    body = await asyncio.to_thread(
        lambda: transcript_formats.rendered(transcript, form, granularities).encode()
    )
    return Response(body, media_type=kind)


@delete(
    "/v1/audio/jobs/{job_id:str}",
    operation_id="delete_audio_job",
    summary="Delete a job with its transcript and its recording",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT | _CONFLICT,
)
async def delete_audio_job(request: ApiRequest, audio_jobs: AudioJobs, job_id: str) -> DeletionBody:
    await audio_jobs.delete(caller_of(request).owner, job_id)
    return DeletionBody(id=job_id, object="audio.job.deleted")


HANDLERS = (
    create_audio_job, list_audio_jobs, get_audio_job, get_audio_job_offset, append_to_audio_job,
    start_audio_job, cancel_audio_job, follow_audio_job, get_audio_job_result, delete_audio_job,
)  # fmt: skip
