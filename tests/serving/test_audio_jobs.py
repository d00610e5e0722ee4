"""Transcription jobs on a real store, with a worker of the test's own where one is needed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.errors import Conflict, InvalidParameter, NotFound
from edgeagent.serving import audio_job_runner, audio_jobs
from edgeagent.serving.audio_job import (
    MAX_SEGMENTS,
    JobFollower,
    JobNews,
    JobOptions,
    segment_of,
)
from edgeagent.serving.audio_job_runner import AudioJobRunner
from edgeagent.serving.audio_jobs import AudioJobs, JobSpec
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings import Settings
from edgeagent.speech.client import Transcription
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Finished, LongRecording, Surveyed, Window
from edgeagent.speech.segments import Segment
from edgeagent.store import erasure_epochs, transcripts
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.ownership import Selector
from edgeagent.store.requests import RequestLog
from edgeagent.store.sql import now_ms
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES, Caller
from tests.serving.fakes import FakeEngines

ORIGIN = RequestOrigin("/v1/audio/jobs", "req_1", "ann", "key_1")
RECORDING = bytes(range(100))


class TwoWindowWorker:
    """Hears a recording of ten seconds in two windows; `starts` has the checkpoint of each beginning."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def transcribe_long(
        self, source: Any, n_bytes: int, options: Any, long: LongRecording, *, priority: int
    ) -> Transcription:
        stream = Transcription(1, lambda request_id: None, source)
        begin_s = long.checkpoint.until_s if long.checkpoint is not None else 0.0
        self.starts.append(begin_s)
        stream.put(Surveyed(1, 10.0, 1, False))
        for end_s in (5.0, 10.0):
            if end_s > begin_s:
                segment = Segment(start_s=end_s - 1, end_s=end_s, text=f" {end_s:.0f}")
                stream.put(Window(1, (segment,), end_s, "en"))
        stream.put(Finished(1))
        return stream


class SpeechEngines(FakeEngines):
    """Another model wants the memory while the first `n_wanted` leases last."""

    def __init__(self, n_wanted: int = 0) -> None:
        super().__init__()
        self.worker = TwoWindowWorker()
        self.n_wanted = n_wanted

    @asynccontextmanager
    async def lease_worker(
        self, model_id: str, kind: Any, *, give_way: asyncio.Event
    ) -> AsyncIterator[TwoWindowWorker]:
        self.n_leased += 1
        if self.n_wanted:
            self.n_wanted -= 1
            give_way.set()
        try:
            yield self.worker
        finally:
            self.n_leased -= 1


class House:
    """The jobs of one store, and the keys that are valid."""

    def __init__(self, database: Database, engines: Any = None) -> None:
        self.callers: dict[str, Caller] = {
            "key_1": Caller(key_id="key_1", owner="ann", scopes=ALL_SCOPES)
        }
        archive = Archive(database, is_searchable=False)
        settings = Settings().speech.jobs
        engines = engines or FakeEngines()
        quota = AudioQuota.of(None, None)
        self.runner = AudioJobRunner(archive, engines, settings, quota, self.callers.get)
        self.jobs = AudioJobs(archive, self.runner, settings)
        self.folder = database.files.recordings

    async def uploaded(self) -> str:
        """A job whose recording is whole."""
        spec = JobSpec(
            model="whisper", n_bytes=len(RECORDING), options=JobOptions(speech=SpeechOptions())
        )
        job = (await self.jobs.create(ORIGIN, spec))["id"]
        await self.jobs.append("ann", job, 0, RECORDING)
        return str(job)

    async def status(self, job: str) -> str:
        return str((await self.jobs.get("ann", job))["status"])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    secret = Secret(os.urandom(32), "the test")
    database = await asyncio.to_thread(
        Database, tmp_path / "store", secret, StoreOptions(reserve_bytes=0)
    )
    house = House(database)
    yield house
    await house.runner.close()
    await asyncio.to_thread(database.close)


async def ended(house: House, job: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while (row := await house.jobs.get("ann", job))["error"] is None:
            changed = house.runner.news.next(job)
            if (row := await house.jobs.get("ann", job))["error"] is not None:
                break
            await changed.wait()
    return row


async def test_a_job_that_waits_fails_once_its_key_is_not_valid_any_more(house):
    job = await house.uploaded()
    await house.jobs.start("ann", job, None)
    house.callers.clear()
    house.runner.start()
    row = await ended(house, job)
    assert row["status"] == "failed"
    assert "invalid_api_key" in row["error"]


async def test_who_follows_a_job_is_told_nothing_more_once_the_key_is_not_valid(house):
    job = await house.uploaded()
    follower = await house.jobs.follow("ann", job, "key_1")
    events, _ = await follower.take(0)
    assert [event.kind for event in events] == ["audio.job.progress"]
    waiting = asyncio.create_task(follower.take(0))
    await asyncio.sleep(0)
    house.callers.clear()
    house.runner.news.tell(job)
    async with asyncio.timeout(60):
        events, _ = await waiting
    assert b"invalid_api_key" in events[0].data
    assert await follower.take(0) == ([], 0)


async def test_who_follows_one_job_is_not_woken_by_another(house):
    first, second = await house.uploaded(), await house.uploaded()
    news = house.runner.news.next(first)
    await house.jobs.cancel("ann", second)
    assert not news.is_set()
    await house.jobs.cancel("ann", first)
    assert news.is_set()


async def test_nothing_is_kept_of_clients_that_left(house):
    """Jobs that have ended get no more news, which would end the wait for them."""
    for i in range(100):
        house.runner.news.next(f"job_{i}")
    waiting = house.runner.news.next("job_x")
    assert house.runner.news.n_awaited == 1
    house.runner.news.tell("job_x")
    assert waiting.is_set() and house.runner.news.n_awaited == 0


async def test_a_job_gives_way_between_windows_and_goes_on_from_its_checkpoint(house, monkeypatch):
    monkeypatch.setattr(audio_job_runner, "GIVE_WAY_S", 0.0)
    engines = SpeechEngines(n_wanted=3)
    jobs = House(house.runner._archive.database, engines)
    job = await jobs.uploaded()
    await jobs.jobs.start("ann", job, None)
    jobs.runner.start()
    try:
        async with asyncio.timeout(60):
            while await jobs.status(job) != "completed":
                changed = jobs.runner.news.next(job)
                if await jobs.status(job) != "completed":
                    await changed.wait()
    finally:
        await jobs.runner.close()
    # Behind the survey, then behind each window.
    assert engines.worker.starts == [0.0, 0.0, 5.0, 10.0]
    found, _ = await jobs.jobs.transcript("ann", job, is_partial=False)
    assert [segment.end_s for segment in found.segments] == [5.0, 10.0]
    assert engines.n_leased == 0


async def test_a_job_from_before_an_erasure_is_not_logged_after_its_deletions(house):
    store = house.runner._archive.database
    engines, log, is_logged = SpeechEngines(), RequestLog(store, flush_s=60), asyncio.Event()
    engines.log = lambda row: (log.add(row), is_logged.set())
    jobs = House(store, engines)
    erasure_epochs.SEEN.set(None)  # as outside of requests: other tests may have left one

    async def done() -> None:
        is_logged.clear()
        await jobs.jobs.start("ann", await jobs.uploaded(), None)
        async with asyncio.timeout(60):
            await is_logged.wait()

    def erase(db: Any) -> None:
        erasure_epochs.advance(db, store.journal.pseudonym, Selector(owner="ann"))

    def n_logged() -> int:
        return store.read(lambda db: db.execute("select count(*) from request").fetchone()[0])

    jobs.runner.start()
    try:
        for is_erased in (True, False):
            await done()
            if is_erased:
                await store.write_async(erase)
            await log.flush()
            assert n_logged() == int(not is_erased), "a later job of the same owner is logged"
    finally:
        await jobs.runner.close()


async def test_parts_that_come_at_once_are_appended_once(house):
    spec = JobSpec(model="whisper", n_bytes=200, options=JobOptions(speech=SpeechOptions()))
    job = (await house.jobs.create(ORIGIN, spec))["id"]
    sent = [house.jobs.append("ann", job, 0, RECORDING) for _ in range(4)]
    ends = await asyncio.gather(*sent, return_exceptions=True)
    assert ends.count(100) == 1
    assert sum(isinstance(end, Conflict) for end in ends) == 3
    assert (await house.jobs.get("ann", job))["n_received"] == 100


async def test_a_part_whose_offset_was_true_a_moment_ago_is_refused(house, monkeypatch):
    """As where the first answer comes while the second part is being looked at."""
    spec = JobSpec(model="whisper", n_bytes=200, options=JobOptions(speech=SpeechOptions()))
    job = (await house.jobs.create(ORIGIN, spec))["id"]
    before = await house.jobs.get("ann", job)
    await house.jobs.append("ann", job, 0, RECORDING)
    get, stale = house.jobs.get, [before]

    async def late(owner: str, job_id: str) -> dict[str, Any]:
        return stale.pop() if stale else await get(owner, job_id)

    monkeypatch.setattr(house.jobs, "get", late)
    with pytest.raises(Conflict, match="ends at byte 100"):
        await house.jobs.append("ann", job, 0, RECORDING)
    assert (await get("ann", job))["n_received"] == 100


async def test_a_job_that_ends_while_a_part_is_written_takes_nothing_more(house, monkeypatch):
    spec = JobSpec(model="whisper", n_bytes=200, options=JobOptions(speech=SpeechOptions()))
    job = (await house.jobs.create(ORIGIN, spec))["id"]
    write, loop = house.jobs._write, asyncio.get_running_loop()

    def ends_meanwhile(before: Any, data: bytes) -> Any:
        after = write(before, data)
        asyncio.run_coroutine_threadsafe(house.jobs.cancel("ann", job), loop).result(60)
        return after

    monkeypatch.setattr(house.jobs, "_write", ends_meanwhile)
    with pytest.raises(NotFound):
        await house.jobs.append("ann", job, 0, RECORDING)
    assert await house.status(job) == "cancelled"
    assert list(house.folder.iterdir()) == []


async def test_a_recording_that_was_altered_on_the_way_ends_its_job(house):
    job = await house.uploaded()
    with pytest.raises(InvalidParameter, match="was altered"):
        await house.jobs.start("ann", job, "0" * 64)
    assert await house.status(job) == "failed"
    assert list(house.folder.iterdir()) == []
    with pytest.raises(Conflict):
        await house.jobs.start("ann", job, "0" * 64)


async def test_one_recording_is_hashed_at_a_time(house, monkeypatch):
    n_now = most = 0

    def digest(folder: Path, recording: Any) -> str:
        nonlocal n_now, most
        n_now += 1
        most = max(most, n_now)
        both.wait(0.05)
        n_now -= 1
        return "d"

    both = threading.Event()
    monkeypatch.setattr(audio_jobs, "_digest", digest)
    jobs = [await house.uploaded() for _ in range(3)]
    await asyncio.gather(*(house.jobs.start("ann", job, None) for job in jobs))
    assert most == 1


async def test_an_upload_that_was_given_up_ends_with_the_next_job(house, monkeypatch):
    spec = JobSpec(model="whisper", n_bytes=200, options=JobOptions(speech=SpeechOptions()))
    job = (await house.jobs.create(ORIGIN, spec))["id"]
    await house.jobs.append("ann", job, 0, RECORDING)
    monkeypatch.setattr(audio_jobs, "now_ms", lambda: now_ms() + 2 * 86_400_000)
    await house.jobs.create(ORIGIN, spec)
    row = await house.jobs.get("ann", job)
    assert row["status"] == "failed" and "24 h" in row["error"]
    assert list(house.folder.glob(job)) == []


def row(status: str) -> dict[str, Any]:
    return {
        "id": "job_1", "status": status, "audio_s": 9.0, "until_s": 9.0, "n_received": None,
        "options": msgspec.json.encode(JobOptions(speech=SpeechOptions())), "created_ms": 0, "name": None,
        "metadata": "{}", "model": "w", "language": "en", "n_bytes": 1, "audio_digest": "d",
        "n_segments": 2 * MAX_SEGMENTS + 1, "transcript_id": "tr_1", "error": None,
    }  # fmt: skip


async def test_many_segments_are_told_some_at_a_time_and_the_end_behind_them():
    stored = [
        {"position": n, "start_s": float(n), "end_s": n + 1.0, "text": f"{n}", "body": None}
        for n in range(2 * MAX_SEGMENTS)
    ]

    async def load(n_seen: int) -> Any:
        return row("completed"), stored[n_seen:][:MAX_SEGMENTS]

    async def is_allowed() -> bool:
        return True

    follower = JobFollower("job_1", JobNews(), load, is_allowed)
    told, n_seen = [], 0
    async with asyncio.timeout(60):
        while (taken := await follower.take(n_seen))[0]:
            events, n_seen = taken
            assert len(events) <= MAX_SEGMENTS
            told += [event.kind for event in events]
    assert told == ["audio.job.segment"] * len(stored) + ["audio.job.completed"]
    assert n_seen == len(stored)


async def test_a_long_transcript_is_put_together_on_a_thread(house, monkeypatch):
    threads = []

    def build(found: Any) -> Any:
        threads.append(threading.current_thread())
        return segment_of(found)

    monkeypatch.setattr(audio_jobs, "segment_of", build)
    monkeypatch.setattr(
        transcripts, "segments",
        lambda db, *some: [{"start_s": 0.0, "end_s": 1.0, "text": "hello", "body": None}],
    )  # fmt: skip
    job = await house.uploaded()
    transcript, _ = await house.jobs.transcript("ann", job, is_partial=True)
    assert transcript.text == "hello"
    assert threads and threading.main_thread() not in threads
