"""Transcription jobs: uploads in parts, their order and bounds, results, events, and who may see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from typing import Any

import httpx
import pytest

from scripts.faults.speech_jobs import Kill, Outcome, differences, n_certain, transcribe
from tests.commands import run_here
from tests.conftest import WHISPER, DaemonProcess, installed, serving, wait_for
from tests.speech.recordings import long_dialogue, tone, wav_of, words_of

# Three windows.
RECORDING = wav_of(long_dialogue(4))
SECONDS = long_dialogue(4).shape[1] / 16_000
PART = {"Content-Type": "application/offset+octet-stream"}
PART_BYTES = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("state")
    bounds = {
        "speech.jobs.max_open_per_owner": 3,
        "speech.jobs.max_recording_bytes": len(RECORDING),
        "speech.jobs.max_total_bytes": 3 * len(RECORDING),
    }
    with serving(installed(WHISPER), state, preload=False, **bounds) as found:
        yield found


@pytest.fixture(scope="module")
def http(daemon: DaemonProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{daemon.url}/v1/audio", timeout=120) as found:
        yield found


def create(http: httpx.Client, data: bytes = RECORDING, **fields: Any) -> str:
    made = http.post("/jobs", json={"bytes": len(data)} | fields)
    assert made.status_code == 201, made.text
    assert made.json()["status"] == "uploading"
    return str(made.json()["id"])


def send(http: httpx.Client, job: str, data: bytes, at: int) -> httpx.Response:
    return http.patch(
        f"/jobs/{job}/recording", content=data, headers=PART | {"Upload-Offset": str(at)}
    )


def upload(http: httpx.Client, job: str, data: bytes = RECORDING) -> None:
    for at in range(0, len(data), PART_BYTES):
        sent = send(http, job, data[at : at + PART_BYTES], at)
        assert (sent.status_code, sent.headers["upload-offset"]) == (
            204,
            str(min(len(data), at + PART_BYTES)),
        )


def start(http: httpx.Client, job: str, **fields: Any) -> httpx.Response:
    return http.post(f"/jobs/{job}/start", json=fields)


def events(http: httpx.Client, job: str, **params: Any) -> Generator[dict[str, Any], None, None]:
    with http.stream("GET", f"/jobs/{job}/events", params=params) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def finished(http: httpx.Client, job: str) -> dict[str, Any]:
    """The job, once it has ended."""
    *_, last = events(http, job)
    return dict(last["job"])


def files(daemon: DaemonProcess) -> list[str]:
    return [path.name for path in (daemon.state_dir / "store" / "recordings").iterdir()]


@pytest.fixture(scope="module")
def done(http: httpx.Client) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A completed job, and its events."""
    job = create(http, name="round", metadata={"subject": "patient-17"})
    upload(http, job)
    digest = hashlib.sha256(RECORDING).hexdigest()
    assert start(http, job, sha256=digest).json()["status"] in ("queued", "running")
    told = list(events(http, job))
    yield http.get(f"/jobs/{job}").json(), told


def test_a_completed_job_says_all_of_itself_and_its_recording_is_gone(http, daemon, done):
    job, _ = done
    assert job["status"] == "completed"
    assert job["duration"] == job["transcribed"]
    assert abs(job["duration"] - SECONDS) < 0.1
    assert (job["name"], job["metadata"]) == ("round", {"subject": "patient-17"})
    assert job["audio_sha256"] == hashlib.sha256(RECORDING).hexdigest()
    assert (job["upload_offset"], job["error"]) == (None, None)
    assert job["id"] not in files(daemon)
    assert job["id"] in [row["id"] for row in http.get("/jobs").json()["data"]]
    assert http.get(f"/transcripts/{job['transcript_id']}").json()["subject"] == "patient-17"


def test_the_events_are_the_segments_in_order_and_progress_in_seconds(http, done):
    job, told = done
    segments = [event for event in told if event["type"] == "audio.job.segment"]
    assert [event["index"] for event in segments] == list(range(job["segments"]))
    assert job["segments"] >= 2
    progress = [event for event in told if event["type"] == "audio.job.progress"]
    seconds = [event["transcribed"] for event in progress if event["transcribed"]]
    assert seconds and seconds == sorted(set(seconds))
    assert [event["type"] for event in told][-1] == "audio.job.completed"
    later = list(events(http, job["id"], starting_after=0))
    assert later == segments[1:] + told[-1:]


def test_the_result_comes_in_every_format(http, done):
    job, _ = done
    found = {
        form: http.get(f"/jobs/{job['id']}/result", params={"response_format": form})
        for form in ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
    }
    assert {answer.status_code for answer in found.values()} == {200}
    assert found["srt"].headers["content-type"].startswith("application/x-subrip")
    assert found["vtt"].text.startswith("WEBVTT")
    assert "headache" in found["text"].text
    assert found["json"].json() == http.get(f"/jobs/{job['id']}/result").json()
    verbose = found["verbose_json"].json()
    assert len(verbose["segments"]) == job["segments"]
    assert words_of(verbose["text"]) == words_of(found["json"].json()["text"])
    speakers = {segment["speaker"] for segment in found["diarized_json"].json()["segments"]}
    assert speakers == {"A"}, "on one channel nobody is told apart"
    params = {"response_format": "verbose_json", "timestamp_granularities": "word"}
    words = http.get(f"/jobs/{job['id']}/result", params=params).json()["words"]
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)


def test_it_hears_what_a_request_hears(http, done):
    """The same recording in one request: the same words, to the last."""
    job, _ = done
    form = {"response_format": "verbose_json"}
    found = http.post("/transcriptions", files={"file": ("a.wav", RECORDING)}, data=form)
    result = http.get(f"/jobs/{job['id']}/result", params={"response_format": "verbose_json"})
    assert result.json()["text"] == found.json()["text"]
    shown = result.json()["segments"]
    assert shown == found.json()["segments"]


def test_a_recording_that_was_altered_ends_its_job(http):
    job = create(http, b"x" * 10)
    assert send(http, job, b"x" * 10, 0).status_code == 204
    wrong = start(http, job, sha256="0" * 64)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "sha256")
    assert finished(http, job)["status"] == "failed"
    assert start(http, job).status_code == 409


def test_an_upload_goes_on_after_a_break_and_says_where(http):
    job = create(http, b"x" * 1000)
    assert send(http, job, b"x" * 400, 0).status_code == 204
    head = http.head(f"/jobs/{job}/recording")
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("400", "1000")
    for at in (0, 399, 401, 1000):
        again = send(http, job, b"x" * 10, at)
        assert again.status_code == 409
        assert "ends at byte 400" in again.json()["error"]["message"]
    assert send(http, job, b"x" * 601, 400).status_code == 413
    assert start(http, job).status_code == 409
    assert send(http, job, b"x" * 600, 400).headers["upload-offset"] == "1000"
    assert start(http, job).status_code == 200
    assert send(http, job, b"", 1000).status_code == 409
    found = finished(http, job)
    assert (found["status"], found["error"]["code"]) == ("failed", "invalid_parameter")
    assert http.get(f"/jobs/{job}/result").status_code == 409


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/offset+octet-stream"}, 400),
        (PART | {"Upload-Offset": "-1"}, 400),
        (PART | {"Upload-Offset": "9" * 30}, 400),
        ({"Content-Type": "application/json", "Upload-Offset": "0"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x", "Upload-Offset": "0"}, 415),
        (PART | {"Upload-Offset": "0", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_parts_that_are_none_are_refused(http, headers, status):
    job = create(http, b"x" * 10)
    found = http.patch(f"/jobs/{job}/recording", content=b"x" * 10, headers=headers)
    assert found.status_code == status, found.text
    assert http.delete(f"/jobs/{job}").status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "bytes"),
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": len(RECORDING) + 1}, 413, "bytes"),
        ({"bytes": 10, "language": "klingon"}, 400, "language"),
        ({"bytes": 10, "file": "a"}, 400, "file"),
        ({"bytes": 10, "stream": True}, 400, "stream"),
        ({"bytes": 10, "model": "no-such-model"}, 404, "model"),
        ({"bytes": 10, "metadata": {"subject": " "}}, 400, "metadata"),
        ({"bytes": 10, "timestamp_granularities": ["word"]}, 400, "timestamp_granularities"),
    ],
)
def test_jobs_that_cannot_be_are_refused(http, fields, status, param):
    found = http.post("/jobs", json=fields)
    assert found.status_code == status, found.text
    assert param in str(found.json()["error"])


def test_open_jobs_and_bytes_are_bounded(http):
    jobs = [create(http, b"x") for _ in range(3)]
    full = http.post("/jobs", json={"bytes": 1})
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) > 0
    assert "3 jobs that have not ended" in full.json()["error"]["message"]
    for job in jobs:
        assert http.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"
        assert http.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"
        assert http.delete(f"/jobs/{job}").json() == {
            "id": job, "object": "audio.job.deleted", "deleted": True,
        }  # fmt: skip
        assert http.delete(f"/jobs/{job}").status_code == 404


def test_a_job_that_is_cancelled_while_it_runs_keeps_what_there_is(http, daemon):
    job = create(http)
    upload(http, job)
    start(http, job)
    for event in events(http, job):
        if event["type"] == "audio.job.segment":
            http.post(f"/jobs/{job}/cancel")
            break
    found = finished(http, job)
    assert found["status"] == "cancelled"
    assert 0 < found["transcribed"] < found["duration"]
    assert job not in files(daemon)
    assert http.get(f"/jobs/{job}/result").status_code == 409
    part = http.get(f"/jobs/{job}/result", params={"partial": True}).json()
    assert part["text"] and "id" not in part


def test_a_request_is_answered_between_the_windows_of_a_job(http):
    job = create(http)
    upload(http, job)
    start(http, job)
    for event in events(http, job):
        if event["type"] == "audio.job.progress" and event["status"] == "running":
            break
    files = {"file": ("a.wav", wav_of(tone(1)))}
    assert http.post("/transcriptions", files=files).status_code == 200
    found = http.get(f"/jobs/{job}").json()
    assert found["status"] == "running"
    assert found["transcribed"] < SECONDS - 5
    assert http.delete(f"/jobs/{job}").status_code == 200


def test_a_job_outlives_its_worker_and_its_daemon(tmp_path, http, done):
    """The short version of scripts/faults/speech_jobs.py: killed in the upload, in the survey and after the
    first window, a job says what it says without a break."""
    kills = [
        Kill("daemon", uploaded=0.5, transcribed_s=0.0),
        Kill("worker", uploaded=1.0, transcribed_s=0.0),
        Kill("daemon", uploaded=1.0, transcribed_s=20.0),
    ]
    found = transcribe(installed(WHISPER), tmp_path, RECORDING, kills)
    assert found.kills == {"daemon": 2, "worker": 1}
    params = {"response_format": "verbose_json"}
    expected = http.get(f"/jobs/{done[0]['id']}/result", params=params).json()["segments"]
    assert differences(Outcome(segments=expected), found) == []
    assert n_certain(found) >= 1, "something was compared"


def test_erasing_the_subject_erases_its_jobs(http, daemon, done):
    job = create(http, metadata={"subject": "patient-18"})
    upload(http, job)
    assert job in files(daemon)
    receipt = httpx.post(
        f"{daemon.url}/admin/erase", json={"subject": "patient-18"}, timeout=60
    ).json()
    assert receipt["erased"]["audio_job"] == 1
    assert "recordings" in receipt["forgotten"]
    assert http.get(f"/jobs/{job}").status_code == 404
    assert job not in files(daemon)
    assert http.get(f"/jobs/{done[0]['id']}").status_code == 200


def key(daemon: DaemonProcess, name: str, *options: str) -> dict[str, str]:
    """The header of a new key, once the daemon knows it."""
    command = ("keys", "create", "--name", name, "--json", "--scopes", "transcribe", *options)
    made = run_here(*command, "--state-dir", daemon.state_dir)
    assert made.returncode == 0, made.stderr
    header = {"Authorization": f"Bearer {json.loads(made.stdout)['secret']}"}
    url = f"{daemon.url}/v1/audio/jobs"
    wait_for(lambda: httpx.get(url, headers=header).status_code == 200)
    return header


def test_what_is_another_s_is_a_404(daemon, http, done):
    """The last but one with this daemon, which asks for a key from now on."""
    mine, others = (key(daemon, name) for name in ("a", "b"))
    job = http.post("/jobs", json={"bytes": 3}, headers=mine).json()["id"]
    headers = others | PART | {"Upload-Offset": "0"}
    for found in (
        http.get(f"/jobs/{job}", headers=others),
        http.get(f"/jobs/{job}/events", headers=others),
        http.get(f"/jobs/{job}/result", headers=others),
        http.get(f"/jobs/{job}/recording", headers=others),
        http.patch(f"/jobs/{job}/recording", content=b"x", headers=headers),
        http.post(f"/jobs/{job}/start", json={}, headers=others),
        http.post(f"/jobs/{job}/cancel", headers=others),
        http.delete(f"/jobs/{job}", headers=others),
    ):
        assert found.status_code == 404, found.request.url
    assert http.get("/jobs", headers=others).json()["data"] == []
    assert http.get(f"/jobs/{job}", headers=mine).json()["status"] == "uploading"


def test_a_key_has_its_audio_of_a_day_and_then_waits(daemon, http):
    mine = key(daemon, "c", "--audio-seconds-per-day", "5")
    form = {"files": {"file": ("a.wav", wav_of(tone(4)))}, "headers": mine}
    assert http.post("/transcriptions", **form).status_code == 200
    job = http.post("/jobs", json={"bytes": len(wav_of(tone(4)))}, headers=mine).json()["id"]
    full = http.post("/transcriptions", **form)
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) > 0
    assert "4 of its 5 s" in full.json()["error"]["message"]
    http.headers.update(mine)
    upload(http, job, wav_of(tone(4)))
    start(http, job)
    for event in events(http, job):
        if event["duration"]:
            break
    assert http.get(f"/jobs/{job}").json()["status"] == "running", "it waits"
    assert http.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"
    short = {"files": {"file": ("a.wav", wav_of(tone(1)))}, "headers": mine}
    assert http.post("/transcriptions", **short).status_code == 200
    assert http.post("/jobs", json={"bytes": 1}, headers=mine).status_code == 429


def test_a_daemon_that_stores_nothing_has_no_jobs(tmp_path):
    with (
        serving(installed(WHISPER), tmp_path, preload=False, store="off") as daemon,
        httpx.Client(base_url=daemon.url, timeout=60) as http,
    ):
        found = http.post("/v1/audio/jobs", json={"bytes": 1})
        assert (found.status_code, found.json()["error"]["code"]) == (409, "store_off")
