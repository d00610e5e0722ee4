"""Ratings of answers and comments on them. Functions run inside `Database.write` or `read`."""

from __future__ import annotations

from typing import Any

from edgeagent.store.connection import StoreConnection
from edgeagent.store.rows import fetch


def add(
    db: StoreConnection,
    owner: str,
    target_id: str,
    *,
    rating: int,
    comment: str | None,
    now_ms: int,
) -> None:
    """Store a rating (-1, 0, 1) and a comment on a request, response, item or transcript."""
    (rowid,) = db.execute(
        "insert into feedback (owner, target_id, rating, created_ms) values (?, ?, ?, ?) "
        "returning rowid",
        (owner, target_id, rating, now_ms),
    ).fetchone()
    if comment:
        db.execute(
            "insert into feedback_content (feedback_rowid, body) values (?, ?)", (rowid, comment)
        )


def of(db: StoreConnection, owner: str, target_id: str) -> list[dict[str, Any]]:
    """This owner's feedback on an object, oldest first; a purged comment is None."""
    return fetch(
        db,
        "select rating, body as comment, created_ms from feedback "
        "left join feedback_content on feedback_rowid = feedback.rowid "
        "where owner = :owner and target_id = :target order by feedback.rowid",
        {"owner": owner, "target": target_id},
    )


def has_target(db: StoreConnection, owner: str, target_id: str) -> bool:
    """Whether this owner has an object with this id."""
    found = db.execute(
        "select 1 where exists (select 1 from request where id = :id and owner = :owner) "
        "or exists (select 1 from response where id = :id and owner = :owner) "
        "or exists (select 1 from item where id = :id and owner = :owner) "
        "or exists (select 1 from transcript where id = :id and owner = :owner)",
        {"id": target_id, "owner": owner},
    ).fetchone()
    return found is not None
