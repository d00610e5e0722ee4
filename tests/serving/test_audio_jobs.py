"""Transcription jobs on a real store, with a worker that is never needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.serving.archive import Archive
from edgeagent.serving.audio_job import JobOptions
from edgeagent.serving.audio_job_runner import AudioJobRunner
from edgeagent.serving.audio_jobs import AudioJobs, JobSpec
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.settings import Settings
from edgeagent.speech.options import SpeechOptions
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES, Caller
from tests.serving.fakes import FakeEngines

ORIGIN = RequestOrigin("/v1/audio/jobs", "req_1", "ann", "key_1")
RECORDING = bytes(range(100))


class House:
    """The jobs of one store, and the keys that are valid."""

    def __init__(self, database: Database) -> None:
        self.callers: dict[str, Caller] = {
            "key_1": Caller(key_id="key_1", owner="ann", scopes=ALL_SCOPES)
        }
        archive = Archive(database, is_searchable=False)
        settings = Settings().speech.jobs
        engines: Any = FakeEngines()
        quota = AudioQuota.of(None, None)
        self.runner = AudioJobRunner(archive, engines, settings, quota, self.callers.get)
        self.jobs = AudioJobs(archive, self.runner, settings)

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
            changed = house.runner.news.next
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
    house.runner.news.tell()
    async with asyncio.timeout(60):
        events, _ = await waiting
    assert b"invalid_api_key" in events[0].data
    assert await follower.take(0) == ([], 0)
