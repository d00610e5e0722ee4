"""Runs transcription jobs, one at a time, so that a crash at any point costs one window at most.

    next       a job of the owner whose turn it is; what ran when the daemon stopped goes first
    run        survey and windows, each with a checkpoint (job_transcription.py)
    end        completed, failed or cancelled; the recording is erased unless the settings or a hold keep it

Windows of jobs wait for those of everybody who waits for an answer (`JOB_PRIORITY`). A worker that dies is
asked again from the last checkpoint; one that dies `MAX_DEATHS` times in the same place ends the job. What
will pass (no memory, a full disk, a model that is being loaded) makes the job wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from edgeagent.errors import (
    EdgeAgentError,
    EngineDied,
    EngineFailed,
    InsufficientMemory,
    StorageFailed,
    StorageFull,
    Unavailable,
)
from edgeagent.serving.audio_job import JobNews
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.engines import Engines
from edgeagent.serving.job_transcription import JobGaveWay, JobGone, JobTranscription
from edgeagent.settings.speech import AudioJobSettings
from edgeagent.store import audio_jobs, audit, recording_files
from edgeagent.store.audio_jobs import JobStatus
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import Caller

logger = logging.getLogger(__name__)

MAX_DEATHS = 5
RETRY_S = 5.0
MAX_RETRY_S = 60.0
# A job that has given its memory to another model goes on after this time.
GIVE_WAY_S = 30.0


class AudioJobRunner:
    """Event loop's thread only; `close()` may be called twice."""

    def __init__(
        self,
        archive: Archive,
        engines: Engines,
        settings: AudioJobSettings,
        quota: AudioQuota,
        caller_of: Callable[[str], Caller | None],
    ) -> None:
        self.news = JobNews()
        self.quota = quota
        self._caller_of = caller_of
        self._archive = archive
        self._engines = engines
        self._settings = settings
        self._loop: asyncio.Task[None] | None = None
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._woken = asyncio.Event()
        self._not_before_s: dict[str, float] = {}
        self._n_deaths: dict[str, int] = {}  # since the last window
        self._turns: dict[str, int] = {}  # when each owner was served last
        self._n_turns = 0

    def start(self) -> None:
        """Go on with the jobs that an earlier daemon left, unless nothing is stored."""
        if self._archive.is_on:
            self._loop = asyncio.create_task(self._keep_running(), name="audio-jobs")

    def wake(self) -> None:
        """A job has been started."""
        self._woken.set()

    async def close(self) -> None:
        """Stop between two windows; the next daemon goes on."""
        for task in (self._loop, self._running[1] if self._running else None):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._loop = self._running = None

    async def end(
        self, job_id: str, status: JobStatus, error: EdgeAgentError | None = None
    ) -> bool:
        """End a job that has not ended, and erase its recording. False: it had ended."""
        database = self._archive.database
        key = audit.key_of(database.secret)
        keeps = self._settings.keep_audio and status == "completed"
        told = (
            msgspec.json.encode({"code": error.code, "message": error.message}) if error else None
        )

        def end(db: Any) -> bool:
            row = audio_jobs.get(db, job_id)
            error_text = told.decode() if told is not None else None
            if row is None or not audio_jobs.end(
                db, job_id, status, now_ms=now_ms(), error=error_text
            ):
                return False
            if not (keeps or row["is_held"]) and audio_jobs.drop_recording(db, job_id):
                audit.append(
                    db, key, actor="system", action="recording.erase", object=f"audio_job:{job_id}"
                )
            return True

        has_ended = await database.write_async(end, essential=True)
        if has_ended:
            logger.info("audio_job_ended id=%s status=%s", job_id, status)
            self._stop(job_id)
            await self.tidy()
        self.news.tell(job_id)
        return has_ended

    async def forget(self, gone: DeletedContent) -> None:
        """Stop a job that was deleted, and delete the files of deleted recordings."""
        if not self._archive.is_on:
            return
        if (running := self._running) is not None:
            job_id = running[0]
            row = await self._archive.database.read_async(lambda db: audio_jobs.get(db, job_id))
            if row is None or row["status"] != "running":
                self._stop(job_id)
                await asyncio.wait({running[1]})
        await self.tidy()
        self.news.tell_all()

    def _stop(self, job_id: str) -> None:
        """Give a job up that runs, unless this is the job itself."""
        if self._running is not None and self._running[0] == job_id:
            task = self._running[1]
            if task is not asyncio.current_task():
                task.cancel()

    async def tidy(self) -> None:
        """Delete the files whose recordings were deleted."""
        database = self._archive.database
        folder = database.files.recordings
        try:
            # Listed before the rows are read, so that a new file is not taken for one without a row.
            names = await asyncio.to_thread(lambda: {path.name for path in folder.glob("*")})
            known = await database.read_async(audio_jobs.recording_ids)
            for name in names - known:
                await asyncio.to_thread(recording_files.remove, folder, name)
        except (OSError, EdgeAgentError) as exc:
            logger.warning("recordings_not_tidied error=%s", exc)

    # ---- one after another

    async def _keep_running(self) -> None:
        await self.tidy()
        while True:
            try:
                self._woken.clear()
                if (job_id := await self._next()) is not None:
                    await self._take_turn(job_id)
                    continue
                wait_s = self._wait_s()
            except EdgeAgentError as exc:  # the store cannot be read now
                logger.warning("audio_jobs_wait code=%s", exc.code)
                wait_s = MAX_RETRY_S
            except Exception:
                logger.exception("audio_jobs_failed")
                wait_s = MAX_RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    def _wait_s(self) -> float | None:
        """Seconds until a job that waits for something may try again; None without one."""
        times = self._not_before_s.values()
        return max(0.05, min(times) - time.monotonic()) if times else None

    async def _next(self) -> str | None:
        found = await self._archive.database.read_async(audio_jobs.unfinished)
        now = time.monotonic()
        known = {job_id for job_id, _ in found}
        self._not_before_s = {k: at for k, at in self._not_before_s.items() if k in known}
        able = [
            (job_id, owner) for job_id, owner in found if self._not_before_s.get(job_id, 0) <= now
        ]
        if not able:
            return None
        job_id, owner = min(able, key=lambda one: self._turns.get(one[1], 0))  # the first of equals
        self._n_turns += 1
        self._turns = {o: n for o, n in self._turns.items() if any(o == own for _, own in found)}
        self._turns[owner] = self._n_turns
        return job_id

    async def _take_turn(self, job_id: str) -> None:
        self._not_before_s.pop(job_id, None)
        task = asyncio.create_task(self._run(job_id), name=f"audio-job-{job_id}")
        self._running = job_id, task
        try:
            await asyncio.wait({task})
        finally:
            if self._running is not None and self._running[1] is task and task.done():
                self._running = None
        if not task.cancelled() and (exc := task.exception()) is not None:
            raise exc

    # ---- one job

    async def _run(self, job_id: str) -> None:
        """Run a job to its end, or until something is missing for now."""
        try:
            await self._transcribe(job_id)
        except JobGone:
            logger.info("audio_job_gone id=%s", job_id)
        except JobGaveWay:
            # Keeping its turn: the other model would have to wait for the next job as well.
            logger.info("audio_job_gave_way id=%s wait_s=%.0f", job_id, GIVE_WAY_S)
            await asyncio.sleep(GIVE_WAY_S)
        except EngineDied as exc:
            n_deaths = self._n_deaths[job_id] = self._n_deaths.get(job_id, 0) + 1
            if n_deaths < MAX_DEATHS:
                logger.warning("audio_job_repeated id=%s reason=engine_died", job_id)
                return  # it is still unfinished, and its turn comes again
            await self._fail(
                job_id,
                EngineFailed(
                    f"The worker died {n_deaths} times at the same place of the recording ({exc.message})"
                ),
            )
        except (Unavailable, InsufficientMemory, StorageFull, StorageFailed) as exc:
            wait_s = min(MAX_RETRY_S, exc.retry_after_s or RETRY_S)
            logger.warning("audio_job_waits id=%s code=%s wait_s=%.0f", job_id, exc.code, wait_s)
            self._not_before_s[job_id] = time.monotonic() + wait_s
        except EdgeAgentError as exc:
            await self._fail(job_id, exc)
        except Exception as exc:
            logger.exception("audio_job_failed id=%s", job_id)
            await self._fail(job_id, EngineFailed(f"The job failed ({type(exc).__name__})."))

    async def _fail(self, job_id: str, error: EdgeAgentError) -> None:
        self._n_deaths.pop(job_id, None)
        try:
            await self.end(job_id, "failed", error)
        except EdgeAgentError as exc:
            logger.warning("audio_job_not_ended id=%s code=%s", job_id, exc.code)
            self._not_before_s[job_id] = time.monotonic() + MAX_RETRY_S

    async def _transcribe(self, job_id: str) -> None:
        job = JobTranscription(
            job_id,
            self._archive,
            self._engines,
            self.quota,
            self.news,
            self._caller_of,
            lambda: self._n_deaths.pop(job_id, None),
        )
        record = await job.run(self._settings.max_audio_s)
        if await self.end(job_id, "completed"):
            await job.log(record)
        self._n_deaths.pop(job_id, None)

    async def is_key_live(self, key_id: str) -> bool:
        """Whether the key is neither revoked nor expired. Raises what the store raises."""
        return await asyncio.to_thread(self._caller_of, key_id) is not None
