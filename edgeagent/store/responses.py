"""Stored answers, from the Responses API and from chats with `store`: input, output and status.

Functions run inside `Database.write` or `read`; the caller names the owner, and rows of other owners are
invisible. The items of an answer are in `items.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeagent.store import items
from edgeagent.store.connection import StoreConnection
from edgeagent.store.items import Item
from edgeagent.store.row_queries import fetch, paged, remove, subject_of
from edgeagent.store.sql import marks
from edgeagent.types.list_pages import Page, RowPage


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to store. `body` is the API's object without its items; `thread` is the conversation or
    the first response of the chain that it belongs to, by default its own id."""

    id: str
    owner: str
    model: str
    status: str
    body: dict[str, Any]
    items: Sequence[Item]
    subject: str | None = None
    conversation_id: str | None = None
    previous_id: str | None = None
    thread: str | None = None


# Unfinished answers. At the start of a daemon, such rows are left over from one that was stopped.
OPEN = ("queued", "in_progress")


def put(db: StoreConnection, response: StoredResponse, *, now_ms: int, is_searchable: bool) -> None:
    """Store an answer, its content and its items."""
    thread = response.thread or response.conversation_id or response.id
    db.execute(
        "insert into response (id, owner, subject, conversation_id, previous_id, model, status, "
        "created_ms, thread) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (response.id, response.owner, response.subject, response.conversation_id,
         response.previous_id, response.model, response.status, now_ms, thread),
    )  # fmt: skip
    db.execute(
        "insert into response_content (response_id, body) values (?, ?)",
        (response.id, json.dumps(response.body, ensure_ascii=False)),
    )
    items.add(
        db,
        response.owner,
        response.items,
        response_id=response.id,
        conversation_id=response.conversation_id,
        now_ms=now_ms,
        is_searchable=is_searchable,
    )


def finish(
    db: StoreConnection, response: StoredResponse, *, now_ms: int, is_searchable: bool
) -> bool:
    """Finish an open answer; `items` are the new ones. False, and nothing is written, if it was deleted or
    finished meanwhile."""
    found = db.execute(
        f"update response set status = ? where id = ? and owner = ? and status in {OPEN}",
        (response.status, response.id, response.owner),
    )
    if not found.rowcount:
        return False
    update_body(db, response.owner, response.id, response.body)
    items.add(
        db,
        response.owner,
        response.items,
        response_id=response.id,
        conversation_id=response.conversation_id,
        now_ms=now_ms,
        is_searchable=is_searchable,
    )
    return True


def fail_open(db: StoreConnection, error: dict[str, Any]) -> int:
    """Mark every open answer as failed. Returns how many there were."""
    db.execute(
        "update response_content set body = json_set(body, '$.status', 'failed', '$.error', json(?)) "
        f"where response_id in (select id from response where status in {OPEN})",
        (json.dumps(error),),
    )
    found = db.execute(f"update response set status = 'failed' where status in {OPEN}")
    return int(found.rowcount)


def get(db: StoreConnection, owner: str, response_id: str) -> dict[str, Any] | None:
    """An answer of this owner; `body` is None if its content was purged."""
    rows = fetch(
        db,
        "select * from response where id = :id and owner = :owner",
        {"id": response_id, "owner": owner},
    )
    return _with_body(db, rows[0]) if rows else None


def listed(
    db: StoreConnection, owner: str, page: Page, *, prefix: str = "", model: str | None = None
) -> RowPage:
    """The owner's answers whose id begins with `prefix`, by age."""
    where = "owner = :owner and substr(id, 1, length(:prefix)) = :prefix"
    if model is not None:
        where += " and model = :model"
    values = {"owner": owner, "prefix": prefix, "model": model}
    found = paged(db, "response", where, values, page, order="created_ms")
    return RowPage([_with_body(db, row) for row in found.rows], found.has_more)


def update_body(db: StoreConnection, owner: str, response_id: str, body: dict[str, Any]) -> None:
    """Replace the stored object."""
    db.execute(
        "update response_content set body = :body where response_id = "
        "(select id from response where id = :id and owner = :owner)",
        {"body": json.dumps(body, ensure_ascii=False), "id": response_id, "owner": owner},
    )


def relabel(
    db: StoreConnection, owner: str, response_id: str, metadata: dict[str, str]
) -> dict[str, Any] | None:
    """Replace the metadata of a stored answer, and with it the subject. Returns its row; None if it does
    not exist."""
    row = get(db, owner, response_id)
    if row is None:
        return None
    subject = subject_of(metadata)
    db.execute("update response set subject = ? where id = ?", (subject, response_id))
    if row["body"] is not None:
        row["body"] |= {"metadata": metadata}
        update_body(db, owner, response_id, row["body"])
    return row | {"subject": subject}


def with_content(db: StoreConnection, ids: Sequence[str]) -> set[str]:
    """Those of these answers that are stored and still have their content."""
    sql = f"select response_id from response_content where response_id in ({marks(len(ids))})"
    return {row[0] for row in db.execute(sql, list(ids)).fetchall()}


def delete(db: StoreConnection, owner: str, response_id: str) -> bool | None:
    """Delete an answer with its items. False: it does not exist. None: it is under legal hold."""
    return remove(
        db, "response", "id = :id and owner = :owner", {"id": response_id, "owner": owner}
    )


def _with_body(db: StoreConnection, row: dict[str, Any]) -> dict[str, Any]:
    content = db.execute(
        "select body from response_content where response_id = ?", (row["id"],)
    ).fetchone()
    return row | {"body": json.loads(content[0]) if content else None}
