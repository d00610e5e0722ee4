"""Conversations: containers of items. Functions run inside `Database.write` or `read`."""

from __future__ import annotations

import json
from typing import Any

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged, remove, subject_of
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import Page, RowPage


def create(
    db: StoreConnection, owner: str, *, metadata: dict[str, str], now_ms: int
) -> dict[str, Any]:
    """Create a conversation about the subject that its metadata names. Returns its row."""
    row = {
        "id": new_id("conv"),
        "owner": owner,
        "subject": subject_of(metadata),
        "metadata": json.dumps(metadata),
        "created_ms": now_ms,
        "updated_ms": now_ms,
    }
    db.execute(
        "insert into conversation (id, owner, subject, metadata, created_ms, updated_ms) "
        "values (:id, :owner, :subject, :metadata, :created_ms, :updated_ms)",
        row,
    )
    return row | {"metadata": metadata, "is_held": 0}


def get(db: StoreConnection, owner: str, conversation_id: str) -> dict[str, Any] | None:
    """A conversation of this owner; None if it does not exist or belongs to someone else."""
    rows = fetch(
        db,
        "select * from conversation where id = :id and owner = :owner",
        {"id": conversation_id, "owner": owner},
    )
    return _decoded(rows[0]) if rows else None


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    """The owner's conversations, most recently used first."""
    found = paged(db, "conversation", "owner = :owner", {"owner": owner}, page, order="updated_ms")
    return RowPage([_decoded(row) for row in found.rows], found.has_more)


def update(
    db: StoreConnection, owner: str, conversation_id: str, *, metadata: dict[str, str], now_ms: int
) -> dict[str, Any] | None:
    """Replace the metadata. None if there is no such conversation. Responses in it without a subject of
    their own get the new subject, too."""
    values = {
        "metadata": json.dumps(metadata), "subject": subject_of(metadata), "now": now_ms,
        "id": conversation_id, "owner": owner,
    }  # fmt: skip
    cursor = db.execute(
        "update conversation set metadata = :metadata, subject = :subject, updated_ms = :now "
        "where id = :id and owner = :owner",
        values,
    )
    if not cursor.rowcount:
        return None
    db.execute(
        "update response set subject = :subject where conversation_id = :id and owner = :owner "
        "and coalesce((select json_extract(body, '$.metadata.subject') from response_content "
        "where response_id = response.id), '') = ''",
        values,
    )
    return get(db, owner, conversation_id)


def touch(db: StoreConnection, owner: str, conversation_id: str, now_ms: int) -> bool:
    """Record that a conversation was continued. False if it does not exist."""
    cursor = db.execute(
        "update conversation set updated_ms = :now where id = :id and owner = :owner",
        {"now": now_ms, "id": conversation_id, "owner": owner},
    )
    return bool(cursor.rowcount)


def delete(db: StoreConnection, owner: str, conversation_id: str) -> bool | None:
    """Delete a conversation with its items. False: it does not exist. None: it is under legal hold."""
    return remove(
        db, "conversation", "id = :id and owner = :owner", {"id": conversation_id, "owner": owner}
    )


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"metadata": json.loads(row["metadata"])}
