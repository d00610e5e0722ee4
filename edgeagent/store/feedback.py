"""Ratings of answers, labels, comments and corrections. Functions run inside `Database.write` or `read`."""

from __future__ import annotations

from typing import Any

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch

MOST = 32  # of one owner on one object: the newest counts, the others say how it came


def add(
    db: StoreConnection,
    owner: str,
    target_id: str,
    *,
    rating: int,
    comment: str | None,
    now_ms: int,
    label: str | None = None,
    correction: str | None = None,
) -> None:
    """Store a rating (-1, 0, 1) of a request, response, item or transcript, with a label ("right", "partly",
    "wrong"), a comment and a better answer. The oldest beyond `MOST` go."""
    (rowid,) = db.execute(
        "insert into feedback (owner, target_id, rating, label, is_corrected, created_ms) "
        "values (?, ?, ?, ?, ?, ?) returning rowid",
        (owner, target_id, rating, label, correction is not None, now_ms),
    ).fetchone()
    if comment or correction is not None:
        db.execute(
            "insert into feedback_content (feedback_rowid, body, correction) values (?, ?, ?)",
            (rowid, comment or "", correction),
        )
    db.execute(
        "delete from feedback where rowid in (select rowid from feedback where owner = ? and target_id = ? "
        "order by rowid desc limit -1 offset ?)",
        (owner, target_id, MOST),
    )


def of(db: StoreConnection, owner: str, target_id: str) -> list[dict[str, Any]]:
    """This owner's feedback on an object, oldest first; a purged comment is None."""
    return fetch(
        db,
        "select rating, label, nullif(body, '') as comment, correction, created_ms from feedback "
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
