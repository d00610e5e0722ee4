"""Transcription jobs, their recordings and checkpoints. Functions run inside `Database.write` or `read`.

A job has a transcript from the start, to which every window appends its segments in the transaction that
moves the checkpoint: a crash loses no segment and repeats none. What ends or deletes a job while it runs
makes the next `advance` return False.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from edgeagent.errors import RateLimited
from edgeagent.store import row_deletion, transcripts
from edgeagent.store.connection import StoreConnection
from edgeagent.store.recording_files import Recording
from edgeagent.store.row_queries import fetch, paged
from edgeagent.store.sql import marks, scalar
from edgeagent.types.caller import LOCAL
from edgeagent.types.list_pages import Page, RowPage

JobStatus = Literal["uploading", "queued", "running", "completed", "failed", "cancelled"]
OPEN: tuple[JobStatus, ...] = ("uploading", "queued", "running")
FULL_RETRY_S = 60.0
# An upload of which no part came for longer takes the room of its parts, not that which it announced.
FRESH_MS = 3_600_000
STALLED_MS = 24 * FRESH_MS
OWNER_SHARE = 0.5  # of all room; what one recording needs is given to those who have none

# A job with what the API shows of its transcript and its recording.
_JOBS = """(select j.*, t.subject, t.model, t.language, t.audio_digest, t.is_held, r.n_received,
    (select count(*) from segment s where s.transcript_id = j.transcript_id) as n_segments
    from audio_job j join transcript t on t.id = j.transcript_id left join recording r on r.id = j.id)"""


class JobBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of one owner may be open, and how many bytes the recordings of all may have."""

    open_per_owner: int
    total_bytes: int


class NewAudioJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that waits for its recording of `n_bytes`. `options` is JSON."""

    id: str
    transcript_id: str
    owner: str
    key_id: str
    subject: str | None
    name: str | None
    metadata: dict[str, str]
    options: str
    model: str
    n_bytes: int
    key: bytes


def add(db: StoreConnection, job: NewAudioJob, bounds: JobBounds, *, now_ms: int) -> None:
    """Store a job, its empty transcript and its empty recording. Raises: RateLimited beyond the bounds."""
    n_open = scalar(
        db,
        f"select count(*) from audio_job where owner = ? and status in ({marks(len(OPEN))})",
        (job.owner, *OPEN),
    )
    if n_open >= bounds.open_per_owner:
        raise RateLimited(
            f"This owner has {n_open} jobs that have not ended, at most {bounds.open_per_owner} are taken: "
            "wait until one ends, or cancel one.",
            retry_after_s=FULL_RETRY_S,
        )
    _check_room(db, job, bounds, now_ms)
    db.execute(
        "insert into transcript (id, owner, subject, model, audio_s, created_ms) "
        "values (?, ?, ?, ?, 0, ?)",
        (job.transcript_id, job.owner, job.subject, job.model, now_ms),
    )
    db.execute(
        "insert into audio_job (id, transcript_id, owner, key_id, name, metadata, options, status, "
        "n_bytes, created_ms, updated_ms) values (?, ?, ?, ?, ?, ?, ?, 'uploading', ?, ?, ?)",
        (
            job.id, job.transcript_id, job.owner, job.key_id, job.name,
            json.dumps(job.metadata, ensure_ascii=False), job.options, job.n_bytes, now_ms, now_ms,
        ),
    )  # fmt: skip
    db.execute(
        "insert into recording (id, owner, key, created_ms) values (?, ?, ?, ?)",
        (job.id, job.owner, job.key, now_ms),
    )


def _check_room(db: StoreConnection, job: NewAudioJob, bounds: JobBounds, now_ms: int) -> None:
    """Raises: RateLimited, with no figures of other owners."""
    found = db.execute(
        "select coalesce(sum(n), 0), coalesce(sum(n) filter (where owner = ?), 0) from (select j.owner, "
        "case when j.status = 'uploading' and j.updated_ms < ? then r.n_received else j.n_bytes end as n "
        "from audio_job j join recording r on r.id = j.id)",
        (job.owner, now_ms - FRESH_MS),
    ).fetchall()
    n_all, n_own = found[0]
    most_own = int(OWNER_SHARE * bounds.total_bytes)
    if n_own and job.owner != LOCAL.owner and n_own + job.n_bytes > most_own:
        raise RateLimited(
            f"The recordings of this owner have {n_own} bytes, this one {job.n_bytes}, at most {most_own} "
            "are kept of one owner: wait until jobs end, delete some, or raise speech.jobs.max_total_bytes.",
            retry_after_s=FULL_RETRY_S,
        )
    if n_all + job.n_bytes > bounds.total_bytes:
        raise RateLimited(
            f"There is no room for a recording of {job.n_bytes} bytes, at most {bounds.total_bytes} are kept "
            "of all jobs: wait until jobs end, delete some, or raise speech.jobs.max_total_bytes.",
            retry_after_s=FULL_RETRY_S,
        )


def stalled(db: StoreConnection, *, now_ms: int) -> list[str]:
    """Jobs that have waited a day for the next part of their recording."""
    found = db.execute(
        "select id from audio_job where status = 'uploading' and updated_ms < ?",
        (now_ms - STALLED_MS,),
    ).fetchall()
    return [row[0] for row in found]


def get(db: StoreConnection, job_id: str, owner: str | None = None) -> dict[str, Any] | None:
    """A job, of this owner where one is given."""
    whose = "" if owner is None else " and owner = :owner"
    rows = fetch(db, f"select * from {_JOBS} where id = :id{whose}", {"id": job_id, "owner": owner})
    return rows[0] if rows else None


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    """The owner's jobs by age."""
    return paged(db, _JOBS, "owner = :owner", {"owner": owner}, page, order="created_ms")


# ---- the recording


def recording(db: StoreConnection, job_id: str) -> Recording | None:
    rows = fetch(
        db,
        "select id, owner, key, n_received, n_records, file_bytes from recording where id = :id",
        {"id": job_id},
    )
    return Recording(**rows[0]) if rows else None


def extend(db: StoreConnection, before: Recording, after: Recording, *, now_ms: int) -> bool:
    """Count what was appended to a file. False: the recording is gone, or was extended by another, or
    the job waits for it no longer."""
    done = db.execute(
        "update recording set n_received = ?, n_records = ?, file_bytes = ? "
        "where id = ? and n_received = ? "
        "and exists (select 1 from audio_job j where j.id = recording.id and j.status = 'uploading')",
        (after.n_received, after.n_records, after.file_bytes, after.id, before.n_received),
    )
    db.execute("update audio_job set updated_ms = ? where id = ?", (now_ms, after.id))
    return bool(done.rowcount)


def recording_ids(db: StoreConnection) -> set[str]:
    return {row[0] for row in db.execute("select id from recording").fetchall()}


def drop_recording(db: StoreConnection, job_id: str) -> bool:
    """Delete the key of a recording, without which its file is noise. False: there was none."""
    is_there = bool(db.execute("delete from recording where id = ?", (job_id,)).rowcount)
    if is_there:
        row_deletion.mark(db)
    return is_there


# ---- from status to status


def queue(db: StoreConnection, job_id: str, digest: str, *, now_ms: int) -> bool:
    """Let a job whose recording is whole wait for its turn. False: it does not wait for a recording."""
    if not _move(db, job_id, ("uploading",), "queued", now_ms):
        return False
    db.execute(
        "update transcript set audio_digest = ? where id = "
        "(select transcript_id from audio_job where id = ?)",
        (digest, job_id),
    )
    return True


def begin(db: StoreConnection, job_id: str, *, now_ms: int) -> bool:
    return _move(db, job_id, ("queued", "running"), "running", now_ms)


def end(
    db: StoreConnection, job_id: str, status: JobStatus, *, now_ms: int, error: str | None = None
) -> bool:
    """End a job that has not ended; what it needed to go on is deleted. False: it had ended."""
    if not _move(db, job_id, OPEN, status, now_ms):
        return False
    db.execute("update audio_job set checkpoint = null, error = ? where id = ?", (error, job_id))
    return True


def unfinished(db: StoreConnection) -> list[tuple[str, str]]:
    """Id and owner of the jobs that run or wait, those that run first, then by age."""
    found = db.execute(
        "select id, owner from audio_job where status in ('running', 'queued') "
        "order by status = 'queued', updated_ms, id"
    ).fetchall()
    return [(row[0], row[1]) for row in found]


def _move(
    db: StoreConnection, job_id: str, before: Sequence[JobStatus], after: JobStatus, now_ms: int
) -> bool:
    done = db.execute(
        "update audio_job set status = ?, updated_ms = ? "
        f"where id = ? and status in ({marks(len(before))})",
        (after, now_ms, job_id, *before),
    )
    return bool(done.rowcount)


# ---- progress


def survey(
    db: StoreConnection, job_id: str, audio_s: float, checkpoint: str, *, now_ms: int
) -> bool:
    """Note how long the recording is. False: the job does not run any more."""
    done = db.execute(
        "update audio_job set audio_s = ?, checkpoint = ?, updated_ms = ? "
        "where id = ? and status = 'running'",
        (audio_s, checkpoint, now_ms, job_id),
    )
    db.execute(
        "update transcript set audio_s = ? where id = "
        "(select transcript_id from audio_job where id = ?)",
        (audio_s, job_id),
    )
    return bool(done.rowcount)


def advance(
    db: StoreConnection,
    job_id: str,
    added: Sequence[transcripts.Segment],
    *,
    until_s: float,
    language: str,
    checkpoint: str,
    now_ms: int,
    is_searchable: bool,
) -> bool:
    """Append the segments of a window and move the checkpoint behind it. False: the job does not run any
    more, and nothing was stored."""
    rows = db.execute(
        "update audio_job set until_s = ?, checkpoint = ?, updated_ms = ? "
        "where id = ? and status = 'running' and until_s < ? returning transcript_id",
        (until_s, checkpoint, now_ms, job_id, until_s),
    ).fetchall()
    if not rows:
        return False
    transcript_id = rows[0][0]
    first = scalar(db, "select count(*) from segment where transcript_id = ?", (transcript_id,))
    transcripts.append(db, transcript_id, added, first=first, is_searchable=is_searchable)
    db.execute("update transcript set language = ? where id = ?", (language, transcript_id))
    return True
