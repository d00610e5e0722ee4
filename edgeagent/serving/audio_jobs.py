"""Transcription jobs for long recordings, step by step.

    create    a job, its empty transcript and its empty sealed recording, within bounds
    append    audio from the offset at which the recording ends; on disk when it is acknowledged
    start     the recording is whole: its digest is noted, and it waits for its turn
    run       window by window, each with a checkpoint (audio_job_runner.py)
    result    the segments as a transcript, in any format
    delete    the transcript with the job, the key of the recording and its file

Without a database there are no jobs: nothing of a recording would survive the daemon.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.errors import BodyTooLarge, Conflict, DeadlineExceeded, InvalidParameter
from edgeagent.serving.audio_job import (
    ENDED,
    MAX_SEGMENTS,
    JobFollower,
    JobOptions,
    options_of,
    segment_of,
)
from edgeagent.serving.audio_job_runner import AudioJobRunner
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings.speech import AudioJobSettings
from edgeagent.speech.segments import Transcript
from edgeagent.store import audio_jobs, audit, recording_files, transcripts
from edgeagent.store.audio_jobs import JobBounds, NewAudioJob
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.connection import from_os, full
from edgeagent.store.recording_files import Recording, RecordingReader
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import Page, RowPage

READ_BYTES = 1 << 20


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants: a recording of `n_bytes` transcribed by `model`."""

    model: str
    n_bytes: int
    options: JobOptions
    name: str | None = None
    metadata: dict[str, str] | None = None


class AudioJobs:
    """Event loop's thread; files and the database work on others."""

    def __init__(
        self,
        archive: Archive,
        runner: AudioJobRunner,
        settings: AudioJobSettings,
        reserve_bytes: int = 0,
    ) -> None:
        self._archive = archive
        self._runner = runner
        self._settings = settings
        self._reserve_bytes = reserve_bytes
        # A recording takes seconds to hash, and the threads are those of everybody.
        self._hashing = asyncio.Semaphore(1)
        self._busy: set[str] = set()  # jobs whose recording is being written or read

    @property
    def _folder(self) -> Path:
        return self._archive.database.files.recordings

    async def create(self, origin: RequestOrigin, spec: JobSpec) -> dict[str, Any]:
        """Raises: BodyTooLarge, RateLimited, Erased, StoreOff, StorageFull."""
        most = self._settings.max_recording_bytes
        if spec.n_bytes > most:
            raise BodyTooLarge(
                f"The recording has {spec.n_bytes} bytes, at most {most} are taken: compress or split it, "
                "or raise speech.jobs.max_recording_bytes.",
                param="bytes",
            )
        await self._runner.quota.check(origin.key_id, origin.audio_s_per_day)
        await self._end_stalled()
        subject = subject_of(spec.metadata)
        job = NewAudioJob(
            id=new_id("job"),
            transcript_id=new_id("tr"),
            owner=origin.owner,
            key_id=origin.key_id,
            subject=subject,
            name=spec.name,
            metadata=spec.metadata or {},
            options=msgspec.json.encode(spec.options).decode(),
            model=spec.model,
            n_bytes=spec.n_bytes,
            key=recording_files.new_key(),
        )
        bounds = JobBounds(
            open_per_owner=self._settings.max_open_per_owner,
            total_bytes=self._settings.max_total_bytes,
        )
        await self._archive.write(
            origin.owner,
            lambda db: audio_jobs.add(db, job, bounds, now_ms=now_ms()),
            subjects=[subject],
        )
        return await self.get(origin.owner, job.id)

    async def _end_stalled(self) -> None:
        """End the jobs whose clients have given up: their recordings take room."""
        found = await self._archive.database.read_async(
            lambda db: audio_jobs.stalled(db, now_ms=now_ms())
        )
        for job_id in found:
            await self._runner.end(
                job_id,
                "failed",
                DeadlineExceeded(
                    "No part of the recording has come for 24 h: send it again as a new job."
                ),
            )

    async def get(self, owner: str, job_id: str) -> dict[str, Any]:
        """Raises: NotFound, StoreOff."""
        row = await self._archive.database.read_async(lambda db: audio_jobs.get(db, job_id, owner))
        if row is None:
            raise absent(job_id)
        return row

    async def listed(self, owner: str, page: Page) -> RowPage:
        return await self._archive.database.read_async(
            lambda db: audio_jobs.listed(db, owner, page)
        )

    # ---- the recording

    async def append(self, owner: str, job_id: str, offset: int, data: bytes) -> int:
        """Store more of the recording; it is on disk when the new offset is returned.

        Raises: NotFound; Conflict where the recording does not end at `offset`, or the job does not wait
        for it; BodyTooLarge beyond its announced size; StorageFull.
        """
        await self._waiting(owner, job_id)
        with self._alone(job_id):
            row = await self._waiting(owner, job_id)  # as it is now that no other part comes
            _check_part(row, offset, data)
            return await self._append(job_id, data)

    async def _append(self, job_id: str, data: bytes) -> int:
        database = self._archive.database
        before = await database.read_async(lambda db: audio_jobs.recording(db, job_id))
        if before is None:
            raise absent(job_id)
        after = await asyncio.to_thread(self._write, before, data)
        is_there = await database.write_async(
            lambda db: audio_jobs.extend(db, before, after, now_ms=now_ms())
        )
        if not is_there:  # deleted or ended meanwhile
            await self._runner.tidy()
            raise absent(job_id)
        self._runner.news.tell(job_id)
        return after.n_received

    def _write(self, before: Recording, data: bytes) -> Recording:
        path = self._folder / before.id
        try:
            if shutil.disk_usage(self._folder).free < self._reserve_bytes + len(data):
                raise full(path)
            return recording_files.append(self._folder, before, data)
        except OSError as exc:
            raise from_os(exc, path) from exc

    async def start(self, owner: str, job_id: str, sha256: str | None) -> dict[str, Any]:
        """Let a job whose recording is whole wait for its turn. Raises: NotFound; Conflict where the
        recording is not whole, or the job has been started; InvalidParameter for another digest, which ends
        the job."""
        await self._waiting(owner, job_id)
        database = self._archive.database
        with self._alone(job_id):
            row = await self._waiting(owner, job_id)
            if row["n_received"] != row["n_bytes"]:
                raise Conflict(
                    f"The recording of {job_id} has {row['n_received']} of {row['n_bytes']} bytes: send the "
                    "rest before the start.",
                )
            recording = await database.read_async(lambda db: audio_jobs.recording(db, job_id))
            if recording is None:
                raise absent(job_id)
            async with self._hashing:
                digest = await asyncio.to_thread(_digest, self._folder, recording)
            if sha256 is not None and sha256.lower() != digest:
                error = InvalidParameter(
                    f"The recording that arrived has the SHA-256 {digest}, not {sha256[:64]}: it was altered "
                    "on the way, send it again as a new job.",
                    param="sha256",
                )
                await self._runner.end(job_id, "failed", error)
                raise error
            key = self._audit_key

            def queue(db: Any) -> None:
                if audio_jobs.queue(db, job_id, digest, now_ms=now_ms()):
                    audit.append(
                        db, key, actor=row["key_id"], action="audio.job.start",
                        object=f"audio_job:{job_id}", digest=digest,
                    )  # fmt: skip

            await database.write_async(queue)
        self._runner.news.tell(job_id)
        self._runner.wake()
        return await self.get(owner, job_id)

    async def _waiting(self, owner: str, job_id: str) -> dict[str, Any]:
        """A job that waits for its recording. Raises: NotFound, Conflict."""
        row = await self.get(owner, job_id)
        if row["status"] != "uploading":
            raise Conflict(f"The job {job_id} is {row['status']}: its recording is complete.")
        return row

    @property
    def _audit_key(self) -> bytes:
        return audit.key_of(self._archive.database.secret)

    def _alone(self, job_id: str) -> _Alone:
        return _Alone(self._busy, job_id)

    # ---- the end

    async def cancel(self, owner: str, job_id: str) -> dict[str, Any]:
        """End a job; one that has ended stays as it is. Raises: NotFound."""
        await self.get(owner, job_id)
        await self._runner.end(job_id, "cancelled")
        return await self.get(owner, job_id)

    async def delete(self, owner: str, job_id: str) -> None:
        """Delete a job with its transcript and its recording, whatever it is doing. Raises: NotFound,
        LegalHold."""
        row = await self.get(owner, job_id)
        await self._archive.delete(DeletionTarget("transcript", row["transcript_id"], owner))

    async def transcript(
        self, owner: str, job_id: str, *, is_partial: bool
    ) -> tuple[Transcript, JobOptions]:
        """What was transcribed, and how it is to be shown. Raises: NotFound; Conflict for a job that is not
        completed, unless a part is enough."""
        row = await self.get(owner, job_id)
        if row["status"] != "completed" and not is_partial:
            way_out = "it has no more to come" if row["status"] in ENDED else "wait for its end"
            raise Conflict(
                f"The job {job_id} is {row['status']}: {way_out}, or ask for what there is with "
                "`partial=true`."
            )
        rows = await self._archive.database.read_async(
            lambda db: transcripts.segments(db, row["transcript_id"])
        )
        options = options_of(row)
        language = row["language"] or options.speech.language or "en"
        # Hours of speech have thousands of segments, which take longer than others can wait.
        found = await asyncio.to_thread(lambda: tuple(segment_of(one) for one in rows))
        transcript = Transcript(
            segments=found,
            language="en" if options.speech.task == "translate" else language,
            duration_s=row["audio_s"] or 0.0,
            task=options.speech.task,
            id=row["transcript_id"] if row["status"] == "completed" else None,
        )
        return transcript, options

    async def follow(self, owner: str, job_id: str, key_id: str) -> JobFollower:
        """The events of a job, for as long as the key that asks for them is valid. Raises: NotFound."""
        found = await self.get(owner, job_id)
        database = self._archive.database

        async def load(n_seen: int) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
            return await database.read_async(
                lambda db: (
                    audio_jobs.get(db, job_id, owner),
                    transcripts.segments(db, found["transcript_id"], n_seen, MAX_SEGMENTS),
                )
            )

        return JobFollower(
            job_id, self._runner.news, load, lambda: self._runner.is_key_live(key_id)
        )


class _Alone:
    """While it lasts, nobody else writes the recording of a job. Raises: Conflict."""

    def __init__(self, busy: set[str], job_id: str) -> None:
        self._busy = busy
        self._job_id = job_id

    def __enter__(self) -> None:
        if self._job_id in self._busy:
            raise Conflict(
                f"Another part of the recording of {self._job_id} is being received: wait for its answer."
            )
        self._busy.add(self._job_id)

    def __exit__(self, *exc: object) -> None:
        self._busy.discard(self._job_id)


def _check_part(row: dict[str, Any], offset: int, data: bytes) -> None:
    """Raises: Conflict where the recording does not end at `offset`; BodyTooLarge."""
    if offset != row["n_received"]:
        raise Conflict(
            f"The recording of {row['id']} ends at byte {row['n_received']}, this part begins at {offset}: "
            "ask for the offset with HEAD, and go on from there.",
            param="Upload-Offset",
        )
    if offset + len(data) > row["n_bytes"]:
        raise BodyTooLarge(
            f"The recording of {row['id']} would have {offset + len(data)} bytes, {row['n_bytes']} were "
            "announced: send what is missing, or make another job.",
            param="bytes",
        )


def _digest(folder: Path, recording: Recording) -> str:
    """SHA-256 of a recording. Raises: StoreDamaged."""
    found, at = hashlib.sha256(), 0
    with closing(RecordingReader(folder, recording)) as reader:
        while part := reader.read(at, READ_BYTES):
            found.update(part)
            at += len(part)
    return found.hexdigest()
