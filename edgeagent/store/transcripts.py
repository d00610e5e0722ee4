"""Transcripts and their segments. Functions run inside `Database.write` or `read`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.rows import fetch, paged, remove
from edgeagent.types.ids import new_id
from edgeagent.types.pages import Page, RowPage


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
    for position, segment in enumerate(segments):
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
    return transcript_id


def get(db: StoreConnection, owner: str, transcript_id: str) -> dict[str, Any] | None:
    """A transcript with its `segments`; the text of purged segments is None."""
    rows = fetch(
        db,
        "select * from transcript where id = :id and owner = :owner",
        {"id": transcript_id, "owner": owner},
    )
    if not rows:
        return None
    segments = fetch(
        db,
        "select position, start_s, end_s, confidence, plain as text, body from segment "
        "left join segment_content on segment_rowid = segment.rowid "
        "where transcript_id = :id order by position",
        {"id": transcript_id},
    )
    for segment in segments:
        segment["body"] = json.loads(segment["body"]) if segment["body"] else None
    return rows[0] | {"segments": segments}


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    """The owner's transcripts by age, without segments."""
    return paged(db, "transcript", "owner = :owner", {"owner": owner}, page, order="created_ms")


def delete(db: StoreConnection, owner: str, transcript_id: str) -> bool | None:
    """Delete a transcript. False: it does not exist. None: it is under legal hold."""
    return remove(
        db, "transcript", "id = :id and owner = :owner", {"id": transcript_id, "owner": owner}
    )
