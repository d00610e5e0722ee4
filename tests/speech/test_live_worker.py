"""Live sessions of a real speech worker with Whisper tiny.en."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.errors import EdgeAgentError, EngineDied, InvalidParameter, QueueFull
from edgeagent.speech.client import LiveStream, SpeechClient
from edgeagent.speech.live_options import LiveOptions, TurnDetection
from edgeagent.speech.live_protocol import (
    Consumed,
    DropItem,
    EndItem,
    ItemDropped,
    ItemHeard,
    LiveAudio,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Finished, SpeechConfig, Surveyed
from scripts.benchmarks.noises import noise
from tests.conftest import N_THREADS
from tests.speech.recordings import TURNS, dialogue, wav_of, words_of

pytestmark = pytest.mark.process
BYTES = (dialogue().mean(axis=0) * 32767).astype("<i2").tobytes()
SAID = {word for turn in TURNS for word in words_of(turn["text"])}
OPTIONS = LiveOptions(rate_hz=16_000, turns=TurnDetection(silence_duration_ms=300))


@pytest.fixture(scope="module")
async def worker(whisper_dir: Path) -> AsyncIterator[SpeechClient]:
    config = SpeechConfig(
        model_id="tiny", path=str(whisper_dir), n_threads=N_THREADS, live_sessions=2
    )
    client = await SpeechClient.start(config, timeout_s=60)
    yield client
    await client.close()


async def until(stream: LiveStream, kind: type) -> list[Any]:
    """All replies up to the first of a kind."""
    found: list[Any] = []
    async with asyncio.timeout(120):
        while True:
            for reply in await stream.take():
                found.append(reply)
            if any(isinstance(reply, kind) for reply in found):
                return found


def send(worker: SpeechClient, stream: LiveStream, data: bytes, size: int = 3200) -> None:
    for at in range(0, len(data), size):
        worker.tell(LiveAudio(stream.request_id, data[at : at + size]))


def text_of(replies: list[Any]) -> str:
    return "".join(r.text for r in replies if isinstance(r, TurnText | TurnHeard))


async def test_a_dialogue_is_understood_turn_by_turn(worker):
    stream = worker.listen(OPTIONS)
    send(worker, stream, BYTES)
    worker.tell(EndItem(stream.request_id))
    replies = await until(stream, ItemHeard)
    stream.cancel()
    kinds = [type(reply) for reply in replies if not isinstance(reply, Consumed)]
    assert kinds[0] is TurnBegan
    assert kinds.count(TurnBegan) == kinds.count(TurnOver) == kinds.count(TurnHeard) >= 2
    assert len(SAID & set(words_of(text_of(replies)))) >= 0.75 * len(SAID)
    heard = [reply for reply in replies if isinstance(reply, TurnHeard)]
    assert all(one.language == "en" and one.start_s < one.end_s for one in heard)
    assert sum(r.n_bytes for r in replies if isinstance(r, Consumed)) == len(BYTES)
    assert isinstance((await until(stream, Finished))[-1], Finished)


async def test_nothing_is_invented_in_noise_and_silence(worker):
    stream = worker.listen(LiveOptions(rate_hz=16_000))
    for name in ("white", "hum"):
        samples = noise(name, 4.0, -30.0)
        send(worker, stream, (samples.ravel() * 32767).astype("<i2").tobytes())
    send(worker, stream, bytes(64_000))
    worker.tell(EndItem(stream.request_id))
    assert text_of(await until(stream, ItemHeard)) == ""
    stream.cancel()


async def test_scores_add_up_to_the_text(worker):
    options = LiveOptions(rate_hz=16_000, turns=None, speech=SpeechOptions(has_logprobs=True))
    stream = worker.listen(options)
    first = round(TURNS[0]["end_s"] * 32_000) // 2 * 2
    send(worker, stream, BYTES[:first], first)
    worker.tell(EndItem(stream.request_id))
    replies = await until(stream, ItemHeard)
    scores = [score for r in replies if isinstance(r, TurnHeard) for score in r.logprobs]
    assert words_of("".join(score.token for score in scores)) == words_of(text_of(replies))
    assert all(score.logprob <= 0 for score in scores)
    stream.cancel()


async def test_what_is_dropped_says_nothing_and_the_session_goes_on(worker):
    stream = worker.listen(LiveOptions(rate_hz=16_000, turns=None))
    send(worker, stream, BYTES[: 2 * 32_000], 64_000)
    worker.tell(DropItem(stream.request_id))
    await until(stream, ItemDropped)
    send(worker, stream, BYTES)
    worker.tell(EndItem(stream.request_id))
    replies = await until(stream, ItemHeard)
    assert len(SAID & set(words_of(text_of(replies)))) >= 0.75 * len(SAID)
    stream.cancel()


async def test_sessions_are_bounded_and_bad_options_refused(worker):
    first, second = worker.listen(OPTIONS), worker.listen(OPTIONS)
    with pytest.raises(QueueFull, match="max_sessions"):
        await until(worker.listen(OPTIONS), Finished)
    first.cancel()
    await until(first, Finished)
    german = LiveOptions(speech=SpeechOptions(language="de"))
    with pytest.raises(InvalidParameter, match="language"):
        await until(worker.listen(german), Finished)
    second.cancel()
    await until(second, Finished)


async def test_live_speech_goes_between_the_windows_of_a_long_recording(worker):
    long = wav_of(np.tile(dialogue().mean(axis=0), 12))
    recording = worker.transcribe(long, SpeechOptions(beam_size=1, temperatures=(0.0,)))
    async for reply in recording:
        if isinstance(reply, Surveyed):
            break
    stream = worker.listen(OPTIONS)
    send(worker, stream, BYTES[: 3 * 32_000])
    worker.tell(EndItem(stream.request_id))

    async def recorded() -> None:
        async for _ in recording:
            pass

    reading = asyncio.create_task(recorded())
    await until(stream, ItemHeard)
    assert not reading.done()
    recording.cancel()
    await reading
    stream.cancel()


async def test_rubbish_is_noise_and_ends_nothing(worker):
    rng = np.random.default_rng(1)
    stream = worker.listen(LiveOptions(rate_hz=24_000))
    for size in (1, 3, 48_001, 0, 7):
        worker.tell(LiveAudio(stream.request_id, rng.bytes(size)))
    worker.tell(EndItem(stream.request_id))
    await until(stream, ItemHeard)
    stream.cancel()
    await until(stream, Finished)
    worker.tell(LiveAudio(stream.request_id, b"\0\0"))  # of a session that has ended
    worker.tell(EndItem(stream.request_id))


async def test_a_worker_that_is_killed_fails_its_sessions(whisper_dir):
    config = SpeechConfig(model_id="tiny", path=str(whisper_dir), n_threads=N_THREADS)
    client = await SpeechClient.start(config, timeout_s=60)
    stream = client.listen(OPTIONS)
    send(client, stream, BYTES)
    await until(stream, TurnBegan)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    error: EdgeAgentError | None = None
    try:
        await until(stream, Finished)
    except EdgeAgentError as exc:
        error = exc
    assert isinstance(error, EngineDied)
    client.tell(EndItem(stream.request_id))
    await client.close()
