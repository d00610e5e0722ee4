"""One transcription job from its checkpoint to the end of its recording.

    survey     once for each job: whether the recording is whole, and how long
    windows    the segments of each and the checkpoint behind them are stored in one transaction

Another model may need the memory of the speech model: the job gives way behind the next window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.routing.decision import Decision
from edgeagent.serving.audio_job import JobNews, options_of
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.authentication import key_gone
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.engines import Engines
from edgeagent.serving.metrics import JOB
from edgeagent.serving.request_log import RequestRecord
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.transcript_archive import stored
from edgeagent.speech.client import Reply, SpeechClient
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import LongRecording, Surveyed, Window
from edgeagent.speech.segments import Checkpoint
from edgeagent.speech.speaker_names import check_names
from edgeagent.store import audio_jobs, erasure_epochs
from edgeagent.store.recording_files import RecordingReader
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import Caller
from edgeagent.types.ids import new_id

JOB_PRIORITY = 2  # interactive requests have priority 0
ENDPOINT = "/v1/audio/jobs"


class JobGone(Exception):
    """The job was cancelled or deleted while it ran."""


class JobGaveWay(Exception):
    """Another model needs the memory of the speech model: go on later."""


class JobTranscription:
    """Runs the windows of one job. Event loop's thread only.

    `progressed` is called with each window that is stored.
    """

    def __init__(
        self,
        job_id: str,
        archive: Archive,
        engines: Engines,
        quota: AudioQuota,
        news: JobNews,
        caller_of: Callable[[str], Caller | None],
        progressed: Callable[[], object],
    ) -> None:
        self._job_id = job_id
        self._database = archive.database
        self._is_searchable = archive.is_searchable
        self._engines = engines
        self._quota = quota
        self._news = news
        self._caller_of = caller_of
        self._progressed = progressed

    async def run(self, max_seconds: float) -> RequestRecord:
        """To the end of the recording, which may have `max_seconds` at most. The record is not yet logged.

        Raises: JobGone, JobGaveWay, and what the pool, the worker and the store raise.
        """
        job_id = self._job_id
        if not await self._database.write_async(
            lambda db: audio_jobs.begin(db, job_id, now_ms=now_ms())
        ):
            raise JobGone
        row, recording, n_erased = await self._database.read_async(
            lambda db: (
                audio_jobs.get(db, job_id),
                audio_jobs.recording(db, job_id),
                erasure_epochs.newest(db),
            )
        )
        erasure_epochs.SEEN.set(n_erased)  # it is not logged where its owner is erased meanwhile
        if row is None or recording is None:
            raise JobGone
        self._news.tell(job_id)
        await self._check_key(row["key_id"])
        folder = self._database.files.recordings
        reader = await asyncio.to_thread(RecordingReader, folder, recording)
        record = RequestRecord(
            RequestOrigin(ENDPOINT, new_id("req"), row["owner"], row["key_id"]),
            Decision(row["model"], "named"),
        )
        with closing(reader):
            await self._windows(row, reader, max_seconds)
        return record

    async def log(self, record: RequestRecord) -> None:
        """Log the job as a request that was answered."""
        job_id = self._job_id
        row = await self._database.read_async(lambda db: audio_jobs.get(db, job_id))
        record.status = 200
        audio_s = row["audio_s"] if row is not None else None
        self._engines.log(
            record.row(self._engines, n_prompt=0, queue_ms=None, audio_s=audio_s, finish=JOB)
        )

    async def _windows(
        self, row: dict[str, Any], reader: RecordingReader, max_seconds: float
    ) -> None:
        """From the checkpoint to the end of the recording."""
        options = options_of(row).speech
        done = (
            msgspec.json.decode(row["checkpoint"], type=Checkpoint) if row["checkpoint"] else None
        )
        long = LongRecording(max_seconds=max_seconds, checkpoint=done)
        is_wanted = asyncio.Event()
        lease = self._engines.lease_worker(row["model"], SpeechClient, give_way=is_wanted)
        async with lease as client:
            stream = client.transcribe_long(
                reader, row["n_bytes"], options, long, priority=JOB_PRIORITY
            )
            try:
                async for reply in stream:
                    before, done = done, await self._receive(row, options, done, reply)
                    if is_wanted.is_set() and done is not before:
                        raise JobGaveWay
            finally:
                stream.cancel()

    async def _receive(
        self, row: dict[str, Any], options: SpeechOptions, done: Checkpoint | None, reply: Reply
    ) -> Checkpoint | None:
        """Store what a reply brings. Returns the checkpoint behind it."""
        match reply:
            case Surveyed():
                if done is None:
                    check_names(options, reply)
                    done = Checkpoint(
                        duration_s=reply.duration_s,
                        n_channels=reply.n_channels,
                        has_speakers=reply.has_speakers,
                    )
                    await self._survey(done)
                if not done.until_s:
                    await self._count(row, done.duration_s)
            case Window():
                assert done is not None, "the survey comes before any window"
                await self._check_key(row["key_id"])
                done = await self._advance(done, reply)
                self._progressed()
                self._engines.record_answer(row["model"])
        return done

    async def _check_key(self, key_id: str) -> None:
        """Raises: Unauthorized."""
        if await asyncio.to_thread(self._caller_of, key_id) is None:
            raise key_gone()

    async def _count(self, row: dict[str, Any], audio_s: float) -> None:
        """Raises: RateLimited until the key has room for it; InvalidParameter for what will never have."""
        limit_s = options_of(row).audio_s_per_day
        if (most_s := self._quota.most_s(limit_s)) is not None and audio_s > most_s:
            raise InvalidParameter(
                f"The recording has {audio_s:.0f} s, its key may have {most_s:.0f} s of audio transcribed a "
                "day: send a shorter one, or ask for a higher `audio_seconds_per_day`.",
                param="file",
            )
        await self._quota.take(row["key_id"], limit_s, audio_s)

    async def _survey(self, checkpoint: Checkpoint) -> None:
        job_id, text = self._job_id, msgspec.json.encode(checkpoint).decode()
        if not await self._database.write_async(
            lambda db: audio_jobs.survey(db, job_id, checkpoint.duration_s, text, now_ms=now_ms())
        ):
            raise JobGone
        self._news.tell(job_id)

    async def _advance(self, before: Checkpoint, window: Window) -> Checkpoint:
        job_id = self._job_id
        after = msgspec.structs.replace(
            before, until_s=window.until_s, language=window.language, context=window.context
        )
        text = msgspec.json.encode(after).decode()
        added = [stored(segment) for segment in window.segments]
        if not await self._database.write_async(
            lambda db: audio_jobs.advance(
                db,
                job_id,
                added,
                until_s=after.until_s,
                language=after.language,
                checkpoint=text,
                now_ms=now_ms(),
                is_searchable=self._is_searchable,
            )
        ):
            raise JobGone
        self._news.tell(job_id)
        return after
