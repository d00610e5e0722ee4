"""A real speech worker in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeagent.errors import (
    BodyTooLarge,
    EdgeAgentError,
    EngineDied,
    InvalidParameter,
    ModelUnusable,
    QueueFull,
)
from edgeagent.speech.client import SpeechClient, Transcription
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Finished, SpeechConfig, Surveyed, Window
from edgeagent.speech.segments import text_of
from tests.conftest import N_THREADS
from tests.speech.recordings import DIALOGUE, TURNS, dialogue, tone, wav_of, words_of

pytestmark = pytest.mark.process
RECORDING = DIALOGUE.read_bytes()


def config(folder: Path, **options: Any) -> SpeechConfig:
    own = {"max_bytes": 8 << 20, "max_seconds": 120.0, "queue_limit": 4}
    return SpeechConfig(model_id="tiny", path=str(folder), n_threads=N_THREADS, **(own | options))


@pytest.fixture(scope="module")
async def worker(whisper_dir: Path) -> AsyncIterator[SpeechClient]:
    client = await SpeechClient.start(config(whisper_dir), timeout_s=60)
    yield client
    await client.close()


async def replies(stream: Transcription) -> tuple[list[Any], EdgeAgentError | None]:
    """All that came, and the error that ended it."""
    found: list[Any] = []
    try:
        async for reply in stream:
            found.append(reply)
    except EdgeAgentError as exc:
        return found, exc
    return found, None


async def test_a_recording_is_surveyed_heard_and_finished(worker):
    options = SpeechOptions(speakers="channel")
    found, error = await replies(worker.transcribe(RECORDING, options))
    assert error is None
    surveyed, *windows, finished = found
    assert isinstance(surveyed, Surveyed)
    assert (surveyed.n_channels, surveyed.has_speakers) == (2, True)
    assert abs(surveyed.duration_s - dialogue().shape[1] / 16_000) < 0.01
    assert all(isinstance(window, Window) and window.language == "en" for window in windows)
    assert isinstance(finished, Finished)
    segments = [segment for window in windows for segment in window.segments]
    assert [s.speaker for s in segments] == ["A", "B", "A", "B"]
    said = {word for turn in TURNS for word in words_of(turn["text"])}
    assert len(said & set(words_of(text_of(segments)))) >= len(said) - 2


async def test_silence_has_no_segments(worker):
    found, error = await replies(worker.transcribe(wav_of(tone(3) * 0), SpeechOptions()))
    assert error is None
    assert [type(reply) for reply in found] == [Surveyed, Finished]


@pytest.mark.parametrize(
    ("recording", "options", "kind", "param"),
    [
        (b"", SpeechOptions(), InvalidParameter, "file"),
        (b"not audio at all", SpeechOptions(), InvalidParameter, "file"),
        (RECORDING[:3000], SpeechOptions(), InvalidParameter, "file"),
        (bytes(9 << 20), SpeechOptions(), BodyTooLarge, "file"),
        (RECORDING, SpeechOptions(language="de"), InvalidParameter, "language"),
        (RECORDING, SpeechOptions(vad={"treshold": 0.5}), InvalidParameter, "vad"),
    ],
)
async def test_what_cannot_be_heard_is_refused(worker, recording, options, kind, param):
    found, error = await replies(worker.transcribe(recording, options))
    assert not [reply for reply in found if isinstance(reply, Window)]
    assert isinstance(error, kind)
    assert error.param == param


async def test_hours_in_a_small_file_are_refused_with_little_memory(whisper_dir, worker):
    from tests.speech.recordings import coded

    silence = coded(np.zeros((1, 150 * 16_000), dtype=np.float32), "flac", "flac")
    _, error = await replies(worker.transcribe(silence, SpeechOptions()))
    assert isinstance(error, BodyTooLarge)


async def test_a_cancelled_recording_ends_and_the_next_is_heard(worker):
    long = wav_of(np.tile(dialogue().mean(axis=0), 6))
    stream = worker.transcribe(long, SpeechOptions())
    async for reply in stream:
        if isinstance(reply, Surveyed):
            stream.cancel()
    found, error = await replies(worker.transcribe(wav_of(tone(1)), SpeechOptions()))
    assert error is None
    assert isinstance(found[-1], Finished)


async def test_what_is_urgent_is_heard_between_the_windows_of_what_is_not(worker):
    long = wav_of(np.tile(dialogue().mean(axis=0), 4))
    options = SpeechOptions(beam_size=1, temperatures=(0.0,), has_words=False)
    slow = worker.transcribe(long, options, priority=2)
    async for reply in slow:
        if isinstance(reply, Surveyed):
            break
    urgent = worker.transcribe(wav_of(tone(1)), SpeechOptions(), priority=0)
    ends: list[str] = []

    async def until_end(name: str, stream: Transcription) -> None:
        await replies(stream)
        ends.append(name)

    await asyncio.gather(until_end("slow", slow), until_end("urgent", urgent))
    assert ends == ["urgent", "slow"]


async def test_a_full_queue_refuses(worker):
    streams = [worker.transcribe(wav_of(tone(8)), SpeechOptions()) for _ in range(9)]
    found = [await replies(stream) for stream in streams]
    errors = [error for _, error in found]
    assert any(isinstance(error, QueueFull) for error in errors)
    assert any(error is None for error in errors)


async def test_a_worker_that_is_killed_fails_its_requests(whisper_dir):
    client = await SpeechClient.start(config(whisper_dir), timeout_s=60)
    stream = client.transcribe(RECORDING, SpeechOptions())
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    _, error = await replies(stream)
    assert isinstance(error, EngineDied)
    await client.close()


async def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        await SpeechClient.start(config(tmp_path), timeout_s=60)


async def test_the_worker_has_no_sockets_but_ours_and_may_make_none(worker):
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    assert process.net_connections(kind="inet") == []
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status


async def test_the_heartbeat_tells_of_memory(worker):
    await replies(worker.transcribe(wav_of(tone(1)), SpeechOptions()))
    async with asyncio.timeout(60):
        while not worker.health.rss_bytes:
            await asyncio.sleep(0.05)
    assert 50 << 20 < worker.health.rss_bytes < 1 << 30
