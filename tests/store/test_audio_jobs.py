"""Transcription jobs in the database: their bounds, their steps, and what takes them along."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.errors import RateLimited
from edgeagent.store import audio_jobs, retention, row_deletion, transcripts
from edgeagent.store.audio_jobs import JobBounds, NewAudioJob
from edgeagent.store.ownership import Selector, set_hold
from edgeagent.store.retention import Sweeper
from edgeagent.types.list_pages import Page
from tests.store.rows import DAY, NOW, n_rows
from tests.store.test_retention import FakeClock

BOUNDS = JobBounds(open_per_owner=2, total_bytes=1000)
WORD = {"text": " hello", "start_s": 0.0, "end_s": 1.0}


def add(db: Any, n: int = 1, *, owner: str = "ann", n_bytes: int = 100, at: int = NOW) -> str:
    job = NewAudioJob(
        id=f"job_{n}", transcript_id=f"tr_{n}", owner=owner, key_id="key_1", subject="patient-17",
        name="round", metadata={"subject": "patient-17"}, options="{}", model="whisper",
        n_bytes=n_bytes, key=b"k" * 32,
    )  # fmt: skip
    audio_jobs.add(db, job, BOUNDS, now_ms=at)
    return job.id


def advance(db: Any, until_s: float, *texts: str, job_id: str = "job_1") -> bool:
    added = [
        transcripts.Segment(start_s=until_s - 1, end_s=until_s, text=text, body={"words": [WORD]})
        for text in texts
    ]
    return audio_jobs.advance(
        db, job_id, added, until_s=until_s, language="en", checkpoint=f'{{"at": {until_s}}}',
        now_ms=NOW, is_searchable=True,
    )  # fmt: skip


def run(db: Any, job_id: str = "job_1") -> None:
    assert audio_jobs.queue(db, job_id, "d" * 64, now_ms=NOW)
    assert audio_jobs.begin(db, job_id, now_ms=NOW)
    assert audio_jobs.survey(db, job_id, 60.0, "{}", now_ms=NOW)


def status(db: Any, job_id: str = "job_1") -> str:
    found = audio_jobs.get(db, job_id)
    assert found is not None
    return str(found["status"])


def test_windows_append_segments_and_move_the_checkpoint_once(conn):
    add(conn)
    run(conn)
    assert advance(conn, 20.0, "one", "two")
    assert not advance(conn, 20.0, "one", "two"), "the same window is stored once"
    assert advance(conn, 45.0, "three")
    job = audio_jobs.get(conn, "job_1", "ann")
    assert job is not None
    assert (job["until_s"], job["n_segments"], job["audio_s"]) == (45.0, 3, 60.0)
    assert job["checkpoint"] == '{"at": 45.0}'
    found = transcripts.segments(conn, "tr_1")
    assert [(row["position"], row["text"]) for row in found] == [
        (0, "one"),
        (1, "two"),
        (2, "three"),
    ]
    assert [row["text"] for row in transcripts.segments(conn, "tr_1", 2)] == ["three"]
    assert audio_jobs.get(conn, "job_1", "bob") is None


def test_segments_come_from_a_position_on_and_so_many_at_once(conn):
    add(conn)
    run(conn)
    advance(conn, 30.0, " one", " two", " three")
    found = [one["text"] for one in transcripts.segments(conn, "tr_1", 1, 1)]
    assert [text.strip() for text in found] == ["two"]
    assert len(transcripts.segments(conn, "tr_1", 1)) == 2


def test_the_transcript_is_shown_once_the_job_is_completed(conn):
    add(conn)
    run(conn)
    advance(conn, 20.0, "one")
    assert transcripts.get(conn, "ann", "tr_1") is None
    assert transcripts.listed(conn, "ann", Page()).rows == []
    assert audio_jobs.end(conn, "job_1", "completed", now_ms=NOW)
    found = transcripts.get(conn, "ann", "tr_1")
    assert found is not None
    assert (found["language"], found["audio_s"], found["audio_digest"]) == ("en", 60.0, "d" * 64)
    assert len(transcripts.listed(conn, "ann", Page()).rows) == 1


@pytest.mark.parametrize("how", ["cancelled", "failed", "completed"])
def test_a_job_that_has_ended_stores_nothing_more(conn, how):
    add(conn)
    run(conn)
    advance(conn, 20.0, "one")
    assert audio_jobs.end(conn, "job_1", how, now_ms=NOW, error=None)
    assert not advance(conn, 40.0, "two")
    assert not audio_jobs.survey(conn, "job_1", 1.0, "{}", now_ms=NOW)
    assert not audio_jobs.begin(conn, "job_1", now_ms=NOW)
    assert not audio_jobs.end(conn, "job_1", "cancelled", now_ms=NOW)
    job = audio_jobs.get(conn, "job_1")
    assert job is not None
    assert (job["status"], job["checkpoint"]) == (how, None)
    assert audio_jobs.unfinished(conn) == []


def test_what_ran_goes_on_before_what_waited(conn):
    for n in (1, 2):
        add(conn, n, owner=f"o{n}")
        assert audio_jobs.queue(conn, f"job_{n}", "d", now_ms=NOW + n)
    audio_jobs.begin(conn, "job_2", now_ms=NOW + 9)
    assert audio_jobs.unfinished(conn) == [("job_2", "o2"), ("job_1", "o1")]


def test_jobs_of_an_owner_and_bytes_of_all_are_bounded(conn):
    add(conn, 1)
    add(conn, 2)
    with pytest.raises(RateLimited, match="2 jobs that have not ended"):
        add(conn, 3)
    add(conn, 3, owner="bob", n_bytes=800)
    with pytest.raises(RateLimited, match="at most 1000 are kept"):
        add(conn, 4, owner="eve", n_bytes=1)
    audio_jobs.end(conn, "job_3", "cancelled", now_ms=NOW)
    audio_jobs.drop_recording(conn, "job_3")
    add(conn, 4, owner="eve", n_bytes=800)


def test_one_owner_has_half_of_the_room_and_learns_nothing_of_others(conn):
    add(conn, 1, n_bytes=400)
    with pytest.raises(RateLimited, match="at most 500 are kept of one owner"):
        add(conn, 2, n_bytes=101)
    add(conn, 2, n_bytes=100)
    with pytest.raises(RateLimited, match="no room for a recording of 501 bytes") as caught:
        add(conn, 3, owner="bob", n_bytes=501)
    assert "500" not in str(caught.value)
    add(conn, 3, owner="bob", n_bytes=500)


def test_the_only_user_of_a_machine_has_all_the_room(conn):
    add(conn, 1, owner="local", n_bytes=400)
    add(conn, 2, owner="local", n_bytes=600)


def test_what_was_announced_is_kept_for_an_hour_and_what_has_come_for_a_day(conn):
    hour = 3_600_000
    add(conn, 1, n_bytes=900)
    before = audio_jobs.recording(conn, "job_1")
    assert before is not None
    after = type(before)(
        id="job_1", owner="ann", key=before.key, n_received=100, n_records=1, file_bytes=132
    )
    assert audio_jobs.extend(conn, before, after, now_ms=NOW + hour)
    with pytest.raises(RateLimited):
        add(conn, 2, owner="bob", n_bytes=900, at=NOW + 2 * hour)
    add(conn, 2, owner="bob", n_bytes=900, at=NOW + 2 * hour + 1)
    assert audio_jobs.stalled(conn, now_ms=NOW + 25 * hour) == []
    assert audio_jobs.stalled(conn, now_ms=NOW + 25 * hour + 1) == ["job_1"]


def test_a_recording_is_extended_by_one_at_a_time(conn):
    add(conn)
    before = audio_jobs.recording(conn, "job_1")
    assert before is not None
    after = type(before)(
        id="job_1", owner="ann", key=before.key, n_received=10, n_records=1, file_bytes=42
    )
    assert audio_jobs.extend(conn, before, after, now_ms=NOW)
    assert not audio_jobs.extend(conn, before, after, now_ms=NOW)
    assert audio_jobs.recording(conn, "job_1") == after


def test_an_open_job_fails_when_its_recording_is_deleted_and_others_stay_as_they_are(conn):
    for n in (1, 2):
        add(conn, n)
        run(conn, f"job_{n}")
    audio_jobs.end(conn, "job_2", "completed", now_ms=NOW)
    for n in (1, 2):
        assert audio_jobs.drop_recording(conn, f"job_{n}")
        assert not audio_jobs.drop_recording(conn, f"job_{n}")
    assert status(conn, "job_1") == "failed"
    found = audio_jobs.get(conn, "job_1")
    assert found is not None and "recording_deleted" in found["error"]
    assert status(conn, "job_2") == "completed"


@pytest.mark.parametrize(
    "delete",
    [
        lambda db: transcripts.delete(db, "ann", "tr_1"),
        lambda db: row_deletion.delete(db, "transcript", ["tr_1"]),
        lambda db: db.execute("delete from transcript where owner = 'ann'"),
    ],
)
def test_a_job_and_its_key_go_with_the_transcript(conn, delete):
    add(conn)
    run(conn)
    advance(conn, 20.0, "one")
    delete(conn)
    assert n_rows(conn) == {}


def test_retention_deletes_recordings_first_and_spares_what_is_held(opened):
    store = opened()
    clock = FakeClock()
    Sweeper(store, b"k" * 32, {}, clock).sweep()  # which knows the clock from then on
    for n, owner in ((1, "ann"), (2, "bob")):
        store.write(lambda db, n=n, o=owner: add(db, n, owner=o, at=NOW - 8 * DAY)).result()
    store.write(lambda db: set_hold(db, Selector(owner="bob"), True)).result()
    swept = Sweeper(store, b"k" * 32, {"recordings": 7, "transcripts": 90}, clock).sweep()
    assert swept.deleted == {"recording": 1}
    assert swept.owners == {"ann"}
    assert store.read(audio_jobs.recording_ids) == {"job_2"}
    assert store.read(lambda db: status(db, "job_1")) == "failed"
    assert "recordings" in retention.CLASSES
