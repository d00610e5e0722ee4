"""Stored transcripts: kept when asked for, each owner's for itself, exported and erased."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.commands import run_here
from tests.conftest import WHISPER, DaemonProcess, installed, serving
from tests.speech.recordings import DIALOGUE, greeting, is_greeting, words_of

RECORDING = DIALOGUE.read_bytes()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("state")
    with serving(installed(WHISPER), state, preload=False, search=True) as found:
        yield found


@pytest.fixture(scope="module")
def http(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=daemon.url, timeout=60) as found:
        yield found


def transcribe(http: httpx.Client, recording: bytes | None = None, **form: Any) -> httpx.Response:
    """Of the greeting unless there is another recording."""
    files = {"file": ("a.ogg", recording or greeting())}
    found = http.post("/v1/audio/transcriptions", files=files, data=form)
    assert found.status_code == 200, found.text
    return found


@pytest.fixture(scope="module")
def kept(http: httpx.Client) -> dict[str, Any]:
    form = {"store": "true", "metadata[subject]": "patient-17", "speakers": "channel"}
    return dict(transcribe(http, RECORDING, **form).json())


def test_a_stored_transcript_is_shown_with_words_and_speakers(http, kept):
    assert kept["id"].startswith("tr_")
    shown = http.get(f"/v1/audio/transcripts/{kept['id']}").json()
    assert shown["object"] == "audio.transcript"
    assert shown["subject"] == "patient-17"
    assert words_of(shown["text"]) == words_of(kept["text"])
    assert [segment["speaker"] for segment in shown["segments"]] == ["A", "B", "A", "B"]
    for segment in shown["segments"]:
        assert segment["words"]
        assert segment["start"] <= segment["words"][0]["start"]
        assert 0 < segment["confidence"] <= 1
    listed = http.get("/v1/audio/transcripts").json()
    assert kept["id"] in [row["id"] for row in listed["data"]]


def test_a_stream_and_plain_text_tell_the_id_too(http):
    text = transcribe(http, store="true", response_format="srt")
    assert text.headers["x-edgeagent-transcript"].startswith("tr_")
    assert is_greeting(text.text)
    lines = transcribe(http, store="true", stream="true").text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-1]["id"].startswith("tr_")


def test_nothing_is_kept_unless_asked_for(http):
    before = len(http.get("/v1/audio/transcripts", params={"limit": 100}).json()["data"])
    assert "id" not in transcribe(http).json()
    assert len(http.get("/v1/audio/transcripts", params={"limit": 100}).json()["data"]) == before


def test_a_deleted_one_is_gone(http):
    name = transcribe(http, store="true").json()["id"]
    assert http.delete(f"/v1/audio/transcripts/{name}").json()["deleted"] is True
    assert http.get(f"/v1/audio/transcripts/{name}").status_code == 404
    assert http.delete(f"/v1/audio/transcripts/{name}").status_code == 404


def test_erasing_its_subject_erases_it(http, kept):
    receipt = http.post("/admin/erase", json={"subject": "patient-17"}).json()
    assert receipt["erased"]["transcript"] == 1
    assert http.get(f"/v1/audio/transcripts/{kept['id']}").status_code == 404


def test_what_is_another_s_is_a_404(daemon, http):
    """The last one with this daemon, which asks for a key from now on."""
    keys = []
    for name in ("a", "b"):
        command = ("keys", "create", "--name", name, "--json", "--scopes", "transcribe")
        done = run_here(*command, "--state-dir", daemon.state_dir)
        assert done.returncode == 0, done.stderr
        keys.append({"Authorization": f"Bearer {json.loads(done.stdout)['secret']}"})
    mine, others = keys
    files = {"file": ("a.wav", greeting())}
    made = http.post(
        "/v1/audio/transcriptions", files=files, data={"store": "true"}, headers=mine
    ).json()
    path = f"/v1/audio/transcripts/{made['id']}"
    assert http.get(path, headers=others).status_code == 404
    assert http.delete(path, headers=others).status_code == 404
    assert http.get("/v1/audio/transcripts", headers=others).json()["data"] == []
    assert http.get(path, headers=mine).status_code == 200


def test_a_daemon_that_stores_nothing_says_so(tmp_path):
    with (
        serving(installed(WHISPER), tmp_path, preload=False, store="off") as daemon,
        httpx.Client(base_url=daemon.url, timeout=60) as http,
    ):
        files = {"file": ("a.ogg", RECORDING)}
        found = http.post("/v1/audio/transcriptions", files=files, data={"store": "true"})
        assert (found.status_code, found.json()["error"]["code"]) == (409, "store_off")
