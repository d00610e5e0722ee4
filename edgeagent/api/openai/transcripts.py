"""`GET /v1/audio/transcripts` and below: transcripts that were asked to be stored. An extension."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import delete, get

from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.serving.transcript_archive import TranscriptArchive
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["audio"]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A stored transcript as the API shows it; text that has expired is null."""
    body = {
        "id": row["id"],
        "object": "audio.transcript",
        "created": row["created_ms"] // 1000,
        "model": row["model"],
        "language": row["language"],
        "duration": row["audio_s"],
        "subject": row["subject"],
        "audio_sha256": row["audio_digest"],
    }
    if "segments" in row:
        body["segments"] = [_segment(segment) for segment in row["segments"]]
        texts = [segment["text"] for segment in row["segments"]]
        body["text"] = None if None in texts else " ".join(texts)
    return body


def _segment(row: dict[str, Any]) -> dict[str, Any]:
    body = row["body"] or {}
    words = [
        {"word": word["text"].strip(), "start": word["start_s"], "end": word["end_s"]}
        | {name: word[name] for name in ("confidence", "speaker") if name in word}
        for word in body.get("words", ())
    ]
    return {
        "id": row["position"],
        "start": row["start_s"],
        "end": row["end_s"],
        "text": row["text"],
        "confidence": row["confidence"],
        "speaker": body.get("speaker"),
        "words": words,
    }


@get(
    "/v1/audio/transcripts",
    operation_id="list_transcripts",
    summary="List stored transcripts",
    tags=_TAGS,
)
async def list_transcripts(
    request: ApiRequest,
    transcripts: TranscriptArchive,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "asc",
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await transcripts.listed(caller_of(request).owner, page)
    return as_list([shown(row) for row in found.rows], found.has_more)


@get(
    "/v1/audio/transcripts/{transcript_id:str}",
    operation_id="get_transcript",
    summary="Show a stored transcript",
    tags=_TAGS,
)
async def get_transcript(
    request: ApiRequest, transcripts: TranscriptArchive, transcript_id: str
) -> dict[str, Any]:
    row = await transcripts.get(caller_of(request).owner, transcript_id)
    return await asyncio.to_thread(shown, row)  # hours of speech have thousands of segments


@delete(
    "/v1/audio/transcripts/{transcript_id:str}",
    operation_id="delete_transcript",
    summary="Delete a stored transcript",
    tags=_TAGS,
    status_code=200,
)
async def delete_transcript(
    request: ApiRequest, transcripts: TranscriptArchive, transcript_id: str
) -> DeletionBody:
    await transcripts.delete(caller_of(request).owner, transcript_id)
    return DeletionBody(id=transcript_id, object="audio.transcript.deleted")


HANDLERS = (list_transcripts, get_transcript, delete_transcript)
