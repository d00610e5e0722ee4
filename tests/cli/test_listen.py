"""`edgeagent listen` with a real speech model: standard input, and microphones that are missing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent.cli.shared import audio_source
from edgeagent.errors import StartFailed
from tests.conftest import WHISPER, DaemonProcess, clean_environment, installed, serving
from tests.speech.recordings import TURNS, dialogue, words_of

BYTES = (dialogue().mean(axis=0) * 32767).astype("<i2").tobytes()
SAID = {word for turn in TURNS for word in words_of(turn["text"])}


def listened(*arguments: object, data: bytes = BYTES) -> Any:
    command = [sys.executable, "-m", "edgeagent", "listen", "--stdin", *map(str, arguments)]
    return subprocess.run(
        command, input=data, capture_output=True, env=clean_environment(), timeout=120, check=False
    )


def is_understood(text: str) -> bool:
    return len(SAID & set(words_of(text))) >= 0.75 * len(SAID)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("listened")
    with serving(installed(WHISPER), state, preload=False) as found:
        yield found


def test_a_worker_of_its_own_hears_where_no_daemon_runs(tmp_path):
    done = listened(
        "--models-dir",
        installed(WHISPER),
        "--state-dir",
        tmp_path,
        "--port",
        "1",
        "--language",
        "en",
    )
    assert done.returncode == 0, done.stderr
    assert is_understood(done.stdout.decode())
    assert done.stdout.endswith(b"\n")


def test_the_running_daemon_hears(daemon):
    port = daemon.url.rpartition(":")[2]
    done = listened("--port", port, "--state-dir", daemon.state_dir)
    assert done.returncode == 0, done.stderr
    assert is_understood(done.stdout.decode())
    quiet = listened("--port", port, "--state-dir", daemon.state_dir, data=bytes(64_000))
    assert (quiet.returncode, quiet.stdout) == (0, b"")


def test_it_stops_after_some_seconds(daemon):
    port = daemon.url.rpartition(":")[2]
    done = listened("--port", port, "--state-dir", daemon.state_dir, "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert len(words_of(done.stdout.decode())) < len(SAID) / 2


def test_what_the_daemon_refuses_is_one_line(daemon):
    port = daemon.url.rpartition(":")[2]
    done = listened("--port", port, "--state-dir", daemon.state_dir, "--model", "no-such-model")
    assert done.returncode == 2
    assert len(done.stderr.decode().strip().splitlines()) == 1
    assert "no-such-model" in done.stderr.decode()


def test_without_a_speech_model_it_says_how_to_install_one(tmp_path):
    done = listened("--state-dir", tmp_path, "--port", "1")
    assert done.returncode == 2
    assert b"edgeagent models install whisper-tiny.en" in done.stderr


async def first_piece() -> bytes:
    async for data in audio_source.microphone("3"):
        return data
    return b""


async def test_a_microphone_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(StartFailed, match=r"edgeagent\[microphone\]"):
        await first_piece()


class Stream:
    """A stream of PortAudio that hears two zero bytes at once."""

    is_closed = False

    def __init__(self, *, callback: Any, device: Any, **options: Any) -> None:
        if device != 3:
            raise ValueError("no such device")
        self._callback = callback

    def start(self) -> None:
        self._callback(bytearray(2), 1, None, None)

    def close(self) -> None:
        type(self).is_closed = True


async def test_a_microphone_is_heard_and_closed(monkeypatch):
    fake = SimpleNamespace(RawInputStream=Stream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    source = audio_source.microphone("3")
    assert await anext(source) == b"\0\0"
    await source.aclose()
    assert Stream.is_closed
    with pytest.raises(StartFailed, match="--device"):
        await anext(audio_source.microphone("4"))


def test_no_more_than_two_minutes_wait():
    pieces: asyncio.Queue[bytes] = asyncio.Queue(2)
    for data in (b"1", b"2", b"3"):
        audio_source._put(pieces, data)
    assert [pieces.get_nowait(), pieces.get_nowait()] == [b"2", b"3"]
