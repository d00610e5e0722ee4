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
    StoreDamaged,
)
from edgeagent.speech.client import SpeechClient, Transcription
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import (
    PART_BYTES,
    Finished,
    LongRecording,
    SpeechConfig,
    Surveyed,
    Window,
)
from edgeagent.speech.segments import Checkpoint, text_of
from tests.conftest import N_THREADS
from tests.speech.recordings import DIALOGUE, TURNS, dialogue, tone, wav_of, words_of
from tests.worker.test_client import Transport

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


async def test_a_recording_is_sent_as_it_is_read_and_no_further_once_it_is_cancelled(whisper_dir):
    client = SpeechClient(config(whisper_dir))
    transport = Transport(client)
    kept = client.transcribe(b"x" * 3 * PART_BYTES, SpeechOptions())
    cancelled = client.transcribe(b"x" * 3 * PART_BYTES, SpeechOptions())
    assert sum(map(len, transport.written)) < 1000  # the two requests
    for _ in range(2):
        client.resume_writing()
    assert 2 * PART_BYTES < sum(map(len, transport.written)) < 2 * PART_BYTES + 2000
    cancelled.cancel()
    for _ in range(9):
        client.resume_writing()
    assert kept.request_id != cancelled.request_id
    assert sum(map(len, transport.written)) < 3 * PART_BYTES + 3000


async def test_what_is_urgent_is_heard_between_the_windows_of_what_is_not(worker):
    long = wav_of(np.tile(dialogue().mean(axis=0), 4))
    options = SpeechOptions(beam_size=1, temperatures=(0.0,), has_words=False)
    slow = worker.transcribe(long, options, priority=2)
    async for reply in slow:
        if isinstance(reply, Surveyed):
            break
    urgent = worker.transcribe(wav_of(tone(1)), SpeechOptions(), priority=0)
    reading = asyncio.create_task(replies(slow))
    await replies(urgent)
    assert not reading.done()
    slow.cancel()
    await reading


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


class Memory:
    """A recording in memory, read part by part; counts what is read."""

    def __init__(self, data: bytes, *, fails_at: int | None = None) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []
        self._fails_at = fails_at

    def read(self, offset: int, n_bytes: int) -> bytes:
        self.reads.append((offset, n_bytes))
        if self._fails_at is not None and offset >= self._fails_at:
            raise StoreDamaged("the recording is torn")
        return self.data[offset : offset + min(n_bytes, 20_000)]


def long(client: SpeechClient, source: Memory, **given: Any) -> Transcription:
    options = given.pop("options", SpeechOptions(temperatures=(0.0,)))
    about = LongRecording(max_seconds=given.pop("max_seconds", 3600.0), **given)
    return client.transcribe_long(source, len(source.data), options, about, priority=2)


@pytest.fixture(scope="module")
def minutes() -> bytes:
    """More than a minute of the dialogue, larger than a request may be."""
    return wav_of(np.tile(dialogue(), 3))


def heard(found: list[Any]) -> list[Any]:
    return [segment for reply in found if isinstance(reply, Window) for segment in reply.segments]


@pytest.fixture(scope="module")
async def in_one_go(worker: SpeechClient, minutes: bytes) -> list[Any]:
    found, error = await replies(long(worker, Memory(minutes)))
    assert error is None
    return found


async def test_a_long_recording_is_read_part_by_part(whisper_dir, worker, minutes, in_one_go):
    source = Memory(minutes)
    small = await SpeechClient.start(config(whisper_dir, max_bytes=100_000), timeout_s=60)
    try:
        found, error = await replies(long(small, source))
    finally:
        await small.close()
    assert error is None
    assert heard(found) == heard(in_one_go)
    assert len(source.reads) >= 2 * len(minutes) // 100_000, "surveyed, then heard"
    assert all(n_bytes <= PART_BYTES for _, n_bytes in source.reads)
    windows = [reply for reply in found if isinstance(reply, Window)]
    assert len(windows) >= 2
    assert all(window.context for window in windows)


async def test_a_recording_goes_on_from_a_checkpoint_as_if_there_had_been_no_break(
    worker, minutes, in_one_go
):
    surveyed = in_one_go[0]
    windows = [reply for reply in in_one_go if isinstance(reply, Window)]
    last = windows[0]
    checkpoint = Checkpoint(
        duration_s=surveyed.duration_s, n_channels=surveyed.n_channels,
        has_speakers=surveyed.has_speakers, until_s=last.until_s, language=last.language,
        context=last.context,
    )  # fmt: skip
    source = Memory(minutes)
    found, error = await replies(long(worker, source, checkpoint=checkpoint))
    assert error is None
    later = [reply for reply in found if isinstance(reply, Window)]
    assert [w.until_s for w in later] == [w.until_s for w in windows[1:]]
    assert heard(later) == heard(windows[1:])
    assert sum(1 for offset, _ in source.reads if offset == 0) <= 2, "it is not surveyed again"


async def test_the_context_of_a_checkpoint_is_the_end_of_the_text_so_far(in_one_go):
    windows = [reply for reply in in_one_go if isinstance(reply, Window)]
    tokens = [token for segment in heard(windows[:1]) for token in segment.tokens]
    plain = [token for token in windows[0].context if token < 50_257]
    assert plain == tokens[-len(plain) :]


@pytest.mark.parametrize(
    ("source", "given", "kind"),
    [
        (Memory(b"not audio at all"), {}, InvalidParameter),
        (Memory(RECORDING[:3000]), {}, InvalidParameter),
        (Memory(RECORDING), {"max_seconds": 5.0}, BodyTooLarge),
        (Memory(RECORDING), {"options": SpeechOptions(language="de")}, InvalidParameter),
        (Memory(RECORDING, fails_at=0), {}, StoreDamaged),
        (Memory(RECORDING, fails_at=20_000), {}, StoreDamaged),
    ],
)
async def test_a_long_recording_that_cannot_be_heard_is_refused(worker, source, given, kind):
    found, error = await replies(long(worker, source, **given))
    assert isinstance(error, kind)
    assert heard(found) == []
    found, error = await replies(worker.transcribe(wav_of(tone(1)), SpeechOptions()))
    assert error is None, "the worker goes on"


async def test_a_long_recording_that_is_cancelled_ends(worker, minutes):
    stream = long(worker, Memory(minutes))
    async for reply in stream:
        if isinstance(reply, Surveyed):
            stream.cancel()
    found, error = await replies(worker.transcribe(wav_of(tone(1)), SpeechOptions()))
    assert (error, type(found[-1])) == (None, Finished)
