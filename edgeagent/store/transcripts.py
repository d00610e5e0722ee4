"""Transcripts and their segments. Functions run inside `Database.write` or `read`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged, remove
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import Page, RowPage

# The transcript of a job is shown here once the job is completed.
_WHOLE = (
    "not exists (select 1 from audio_job j where j.transcript_id = transcript.id "
    "and j.status != 'completed')"
)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of speech: start and end in seconds, its text, and other details."""

    start_s: float
    end_s: float
    text: str
    confidence: float | None = None
    body: dict[str, Any] = msgspec.field(default_factory=dict)


def add(
    db: StoreConnection,
    owner: str,
    segments: Sequence[Segment],
    *,
    model: str,
    audio_s: float,
    now_ms: int,
    is_searchable: bool,
    language: str | None = None,
    subject: str | None = None,
    audio_digest: str | None = None,
) -> str:
    """Store a transcript. Returns its id."""
    transcript_id = new_id("tr")
    db.execute(
        "insert into transcript (id, owner, subject, model, language, audio_s, audio_digest, "
        "created_ms) values (?, ?, ?, ?, ?, ?, ?, ?)",
        (transcript_id, owner, subject, model, language, audio_s, audio_digest, now_ms),
    )
    append(db, transcript_id, segments, first=0, is_searchable=is_searchable)
    return transcript_id


def append(
    db: StoreConnection,
    transcript_id: str,
    segments: Sequence[Segment],
    *,
    first: int,
    is_searchable: bool,
) -> None:
    """Store segments of a transcript, the first at position `first`."""
    for position, segment in enumerate(segments, start=first):
        (rowid,) = db.execute(
            "insert into segment (transcript_id, position, start_s, end_s, confidence) "
            "values (?, ?, ?, ?, ?) returning rowid",
            (transcript_id, position, segment.start_s, segment.end_s, segment.confidence),
        ).fetchone()
        db.execute(
            "insert into segment_content (segment_rowid, body, plain) values (?, ?, ?)",
            (rowid, json.dumps(segment.body, ensure_ascii=False), segment.text),
        )
        if is_searchable and segment.text:
            db.execute(
                "insert into segment_fts (rowid, plain) values (?, ?)", (rowid, segment.text)
            )


def get(db: StoreConnection, owner: str, transcript_id: str) -> dict[str, Any] | None:
    """A transcript with its `segments`; the text of purged segments is None."""
    rows = fetch(
        db,
        f"select * from transcript where id = :id and owner = :owner and {_WHOLE}",
        {"id": transcript_id, "owner": owner},
    )
    if not rows:
        return None
    return rows[0] | {"segments": segments(db, transcript_id)}


def segments(
    db: StoreConnection, transcript_id: str, after: int = 0, limit: int | None = None
) -> list[dict[str, Any]]:
    """The segments from position `after` on, `limit` at most; the text of purged ones is None."""
    found = fetch(
        db,
        "select position, start_s, end_s, confidence, plain as text, body from segment "
        "left join segment_content on segment_rowid = segment.rowid "
        "where transcript_id = :id and position >= :after order by position "
        "limit :limit",
        {"id": transcript_id, "after": after, "limit": -1 if limit is None else limit},
    )
    for segment in found:
        segment["body"] = json.loads(segment["body"]) if segment["body"] else None
    return found


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    """The owner's transcripts by age, without segments."""
    where = f"owner = :owner and {_WHOLE}"
    return paged(db, "transcript", where, {"owner": owner}, page, order="created_ms")


def delete(db: StoreConnection, owner: str, transcript_id: str) -> bool | None:
    """Delete a transcript. False: it does not exist. None: it is under legal hold."""
    return remove(
        db, "transcript", "id = :id and owner = :owner", {"id": transcript_id, "owner": owner}
    )
