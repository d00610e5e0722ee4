"""Transcripts that clients asked to be kept: segments, words and speakers, each owner's for itself."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from edgeagent.serving.content_archive import Archive, absent
from edgeagent.serving.transcription import TranscriptionRequest
from edgeagent.speech.segments import Segment
from edgeagent.store import transcripts
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.list_pages import Page, RowPage


class TranscriptArchive:
    """Event loop's thread; the work is done by the database's."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def check(self) -> None:
        """Before a transcript that is to be kept. Raises: StoreOff, StorageFull."""
        await self._archive.check()

    async def keep(self, request: TranscriptionRequest, metadata: dict[str, str] | None) -> str:
        """Store what was heard; it is on disk when this returns its id. The recording is not kept.

        `metadata` may have a `subject`, whom it is about.
        Raises: Erased where its owner or subject was erased meanwhile; StorageFull.
        """
        subject = subject_of(metadata)
        transcript, owner = request.transcript(), request.record.origin.owner
        segments = [stored(segment) for segment in transcript.segments]
        digest = hashlib.sha256(request.recording.data).hexdigest()
        return await self._archive.write(
            owner,
            lambda db: transcripts.add(
                db,
                owner,
                segments,
                model=request.decision.model_id,
                audio_s=transcript.duration_s,
                now_ms=now_ms(),
                is_searchable=self._archive.is_searchable,
                language=transcript.language,
                subject=subject,
                audio_digest=digest,
            ),
            subjects=[subject],
        )

    async def get(self, owner: str, transcript_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self._archive.database.read_async(
            lambda db: transcripts.get(db, owner, transcript_id)
        )
        if found is None:
            raise absent(transcript_id)
        return found

    async def listed(self, owner: str, page: Page) -> RowPage:
        return await self._archive.database.read_async(
            lambda db: transcripts.listed(db, owner, page)
        )

    async def delete(self, owner: str, transcript_id: str) -> None:
        """Raises: NotFound; LegalHold for one on legal hold."""
        await self._archive.delete(DeletionTarget("transcript", transcript_id, owner))


def stored(segment: Segment) -> transcripts.Segment:
    """A segment as a row."""
    body = msgspec.to_builtins(segment)
    for name in ("start_s", "end_s", "text"):  # columns of their own
        body.pop(name, None)
    return transcripts.Segment(
        start_s=segment.start_s,
        end_s=segment.end_s,
        text=segment.text.strip(),
        confidence=segment.confidence,
        body=body,
    )
