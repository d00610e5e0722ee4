"""Rows as the daemon will write them, for tests that care what becomes of rows."""

from __future__ import annotations

import json
import time
from typing import Any

from edgeagent.routing.feature_record import packed_text
from edgeagent.store import decisions
from edgeagent.store.clock import BUILD_MS
from edgeagent.store.decisions import DecisionRow

DAY = 86_400_000
# A midnight that is later than whatever tests write with the device's clock, on any day that they run.
NOW = (max(BUILD_MS, int(time.time() * 1000)) // DAY + 30) * DAY


def conversation(
    db: Any, n: int | str, *, owner: str = "ann", subject: str | None = None, text: str = "hello",
    at: int = NOW, held: bool = False, n_items: int = 2, response: bool = True,
) -> str:  # fmt: skip
    """A conversation with a response and items in it; gives its id."""
    conv, resp = f"conv_{n}", f"resp_{n}" if response else None
    db.execute(
        "insert into conversation values (?, ?, ?, '{}', ?, ?, ?)",
        (conv, owner, subject, at, at, int(held)),
    )
    if resp:
        db.execute(
            "insert into response (id, owner, conversation_id, model, status, created_ms, thread) "
            "values (?, ?, ?, 'm', 'completed', ?, ?)",
            (resp, owner, conv, at, conv),
        )
        db.execute(
            "insert into response_content values (?, ?)",
            (resp, json.dumps({"instructions": f"{text} instructions"})),
        )
    for i in range(n_items):
        item(
            db, f"{n}_{i}", owner=owner, conversation=conv, response=resp, text=f"{text} {i}", at=at
        )
    return conv


def item(
    db: Any, n: int | str, *, owner: str = "ann", conversation: str | None = None,
    response: str | None = None, text: str = "hello", at: int = NOW,
) -> int:  # fmt: skip
    db.execute(
        "insert into item (id, owner, conversation_id, response_id, position, kind, role, created_ms)"
        " values (?, ?, ?, ?, 0, 'message', 'user', ?)",
        (f"msg_{n}", owner, conversation, response, at),
    )
    rowid = db.execute("select last_insert_rowid()").fetchone()[0]
    body = json.dumps({"content": [{"type": "text", "text": text}]}, ensure_ascii=False)
    db.execute("insert into item_content values (?, ?, ?)", (rowid, body, text))
    db.execute("insert into item_fts (rowid, plain) values (?, ?)", (rowid, text))
    return int(rowid)


def transcript(
    db: Any, n: int | str, *, owner: str = "ann", subject: str | None = None, text: str = "spoken",
    at: int = NOW, held: bool = False, n_segments: int = 2,
) -> str:  # fmt: skip
    name = f"trans_{n}"
    db.execute(
        "insert into transcript values (?, ?, ?, 'whisper', 'en', 1.5, ?, ?, ?)",
        (name, owner, subject, f"{hash(name) & 0xFFFFFFFF:064x}", at, int(held)),
    )
    for i in range(n_segments):
        db.execute(
            "insert into segment (transcript_id, position, start_s, end_s) values (?, ?, ?, ?)",
            (name, i, i * 1.0, i + 1.0),
        )
        rowid = db.execute("select last_insert_rowid()").fetchone()[0]
        said = f"{text} {i}"
        body = json.dumps({"words": said.split()}, ensure_ascii=False)
        db.execute("insert into segment_content values (?, ?, ?)", (rowid, body, said))
        db.execute("insert into segment_fts (rowid, plain) values (?, ?)", (rowid, said))
    return name


def feedback(
    db: Any, target: str, *, owner: str = "ann", text: str = "good", at: int = NOW
) -> None:
    db.execute(
        "insert into feedback (owner, target_id, rating, created_ms) values (?, ?, 1, ?)",
        (owner, target, at),
    )
    rowid = db.execute("select last_insert_rowid()").fetchone()[0]
    body = json.dumps({"text": text})
    db.execute("insert into feedback_content (feedback_rowid, body) values (?, ?)", (rowid, body))


def request(db: Any, n: int | str, *, owner: str = "ann", at: int = NOW) -> None:
    db.execute(
        "insert into request (id, owner, endpoint, model, route, status, total_ms, created_ms)"
        " values (?, ?, 'chat', 'm', 'named', 200, 12.5, ?)",
        (f"req_{n}", owner, at),
    )


def decision(
    db: Any, n: int | str, *, owner: str = "ann", subject: str | None = None,
    response: str | None = None, conversation: str | None = None, at: int = NOW, **fields: Any,
) -> None:  # fmt: skip
    """A decision of a route with the features of a text; its request is `request(n)`."""
    given: dict[str, Any] = {
        "route": "auto", "reason": "default", "chosen": "small", "answered": "small",
        "default_model": "small",
        "chances": {"small": 0.75, "large": 0.25}, "features": lambda: packed_text("set a timer"),
    }  # fmt: skip
    row = DecisionRow(
        request_id=f"req_{n}", owner=owner, subject=subject, response_id=response,
        conversation_id=conversation, created_ms=at, began_s=0.0, **given | fields,
    )  # fmt: skip
    decisions.insert(db, row)


def n_rows(db: Any) -> dict[str, int]:
    """Rows of every table that clients fill; those without any are left out."""
    tables = (
        "conversation", "response", "response_content", "item", "item_content", "item_fts",
        "transcript", "segment", "segment_content", "segment_fts", "audio_job", "recording", "feedback",
        "feedback_content", "request", "decision", "batch", "batch_file", "batch_line",
        "document", "document_part", "vector_store", "vector_store_file", "chunk", "chunk_bits",
        "chunk_vector", "chunk_fts",
    )  # fmt: skip
    there = {row[0] for row in db.execute("select name from sqlite_master").fetchall()}
    found = {
        table: db.execute(f"select count(*) from {table}").fetchone()[0]
        for table in tables if table in there  # not all of them in an older store
    }  # fmt: skip
    return {table: n for table, n in found.items() if n}
