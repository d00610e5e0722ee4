"""`edgeagent transcribe` with and without a running daemon."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import (
    CACHE,
    WHISPER,
    DaemonProcess,
    clean_environment,
    installed,
    serving,
    wait_for,
)
from tests.speech.recordings import DIALOGUE, TURNS, words_of

SAID = {word for turn in TURNS for word in words_of(turn["text"])}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("state")
    with serving(installed(WHISPER), state, preload=False) as found:
        yield found


@pytest.fixture(scope="module")
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(params=["with a daemon", "alone"])
def place(request, daemon, free_port, tmp_path) -> list[str]:
    """The options that reach the daemon, or nobody."""
    port = daemon.url.rpartition(":")[2] if request.param == "with a daemon" else str(free_port)
    return ["--port", port, "--models-dir", str(CACHE), "--state-dir", str(tmp_path / "state")]


def is_understood(text: str) -> bool:
    return len(SAID & set(words_of(text))) >= len(SAID) - 2


def test_speakers_are_named_on_a_line_each(edgeagent, place):
    done = edgeagent("transcribe", DIALOGUE, "--speakers", "doctor,patient", *place)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["doctor", "patient", "doctor", "patient"]
    assert is_understood(done.stdout)
    assert "real-time factor" in done.stderr


def test_files_are_written_where_they_are_wanted_and_bad_ones_are_told(edgeagent, place, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    words = tmp_path / "words.txt"
    words.write_text("# drugs\nheadache\nfever\n")
    out = tmp_path / "out"
    done = edgeagent(
        "transcribe", DIALOGUE, bad, "--format", "verbose_json", "--words", "--language", "English",
        "--vocabulary", words, "--out", out, *place,
    )  # fmt: skip
    assert done.returncode == 2
    assert "bad.wav: The file is no audio file" in " ".join(done.stderr.split())
    assert [path.name for path in out.iterdir()] == ["dialogue.json"]
    body = json.loads((out / "dialogue.json").read_text())
    assert is_understood(body["text"])
    assert body["words"][0]["word"] == "Good"
    assert body["segments"]


def test_a_language_that_is_none_and_a_model_that_is_not_here_are_told(
    edgeagent, free_port, tmp_path
):
    place = ["--port", str(free_port), "--state-dir", str(tmp_path)]
    done = edgeagent("transcribe", DIALOGUE, "--language", "klingon", *place)
    assert (done.returncode, "'klingon' is not known" in done.stderr) == (2, True)
    done = edgeagent("transcribe", DIALOGUE, *place)
    assert done.returncode == 2
    assert "edgeagent models install whisper-tiny.en" in " ".join(done.stderr.split())


def test_names_need_a_channel_for_each(edgeagent, place, tmp_path):
    from tests.speech.recordings import dialogue, wav_of

    mono = Path(tmp_path, "mono.wav")
    mono.write_bytes(wav_of(dialogue().mean(axis=0)[: 3 * 16_000]))
    done = edgeagent("transcribe", mono, "--speakers", "a,b", *place)
    assert done.returncode == 2


def test_what_is_too_large_for_a_request_is_a_job_that_leaves_nothing(edgeagent, daemon, tmp_path):
    options = ["--port", daemon.url.rpartition(":")[2], "--models-dir", str(CACHE)]
    env = {"EDGEAGENT_SPEECH__MAX_UPLOAD_BYTES": "1024"}
    done = edgeagent("transcribe", DIALOGUE, "--speakers", "doctor,patient", *options, env=env)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()][:2] == [
        "doctor",
        "patient",
    ]
    assert is_understood(done.stdout)
    assert httpx.get(f"{daemon.url}/v1/audio/jobs").json()["data"] == []
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing " * 1000)
    done = edgeagent("transcribe", bad, *options, env=env)
    assert done.returncode == 2
    assert "no audio file of a known format" in done.stderr
    assert httpx.get(f"{daemon.url}/v1/audio/jobs").json()["data"] == []


def test_a_watched_folder_is_transcribed_file_by_file(daemon, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    command = [
        sys.executable, "-m", "edgeagent", "transcribe", "--watch", str(folder), "--format", "srt",
        "--port", daemon.url.rpartition(":")[2], "--state-dir", str(tmp_path / "state"),
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, env=clean_environment(), stderr=stderr)
    try:
        (folder / "bad.wav").write_bytes(b"nothing")
        (folder / "visit.ogg").write_bytes(DIALOGUE.read_bytes())
        wait_for(lambda: (folder / "visit.srt").exists(), 120)
        wait_for(lambda: "bad.wav: " in log.read_text(), 120)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert is_understood((folder / "visit.srt").read_text()), log.read_text()
    assert not (folder / "bad.srt").exists()


def test_files_or_a_folder_are_wanted_and_not_both(edgeagent, tmp_path):
    for given in ((), (DIALOGUE, "--watch", tmp_path)):
        done = edgeagent("transcribe", *given)
        assert done.returncode == 2
        assert "--watch" in done.stderr
