"""`edgeagent transcribe` with and without a running daemon."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CACHE, WHISPER, DaemonProcess, installed, serving
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
