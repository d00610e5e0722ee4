"""The items of conversations and responses: messages, calls and their results, in order.

The content of an item is in a table of its own. Functions run inside `Database.write` or `read`; the caller
names the owner, and rows of other owners are invisible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged, remove
from edgeagent.types.ids import ITEM_PREFIXES, new_id
from edgeagent.types.list_pages import Page, RowPage

Parent = Literal["conversation_id", "response_id"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item to store: `body` is its content in API form, `plain` its text for search."""

    kind: str
    body: dict[str, Any]
    role: str | None = None
    plain: str = ""
    is_input: bool = False
    id: str | None = None


def add(
    db: StoreConnection,
    owner: str,
    items: Iterable[Item],
    *,
    conversation_id: str | None = None,
    response_id: str | None = None,
    now_ms: int,
    is_searchable: bool,
) -> list[str]:
    """Append items to those of their parents. Returns their ids."""
    first = db.execute(
        "select coalesce(max(position) + 1, 0) from item "
        "where (conversation_id = :conversation_id or response_id = :response_id) and owner = :owner",
        {"conversation_id": conversation_id, "response_id": response_id, "owner": owner},
    ).fetchone()[0]
    ids = []
    for position, item in enumerate(items, first):
        item_id = item.id or new_id(ITEM_PREFIXES.get(item.kind, "item"))
        (rowid,) = db.execute(
            "insert into item (id, owner, conversation_id, response_id, position, kind, role, "
            "is_input, created_ms) values (?, ?, ?, ?, ?, ?, ?, ?, ?) returning rowid",
            (item_id, owner, conversation_id, response_id, position, item.kind, item.role,
             int(item.is_input), now_ms),
        ).fetchone()  # fmt: skip
        db.execute(
            "insert into item_content (item_rowid, body, plain) values (?, ?, ?)",
            (rowid, json.dumps(item.body, ensure_ascii=False), item.plain),
        )
        if is_searchable and item.plain:
            db.execute("insert into item_fts (rowid, plain) values (?, ?)", (rowid, item.plain))
        ids.append(item_id)
    return ids


def listed(
    db: StoreConnection, owner: str, parent: Parent, parent_id: str, page: Page,
    *, is_input: bool | None = None, with_content: bool = False,
) -> RowPage:  # fmt: skip
    """A page of the items of one parent: all, only inputs, or only outputs. Purged content is None, or
    those items are left out."""
    where = f"owner = :owner and {parent} = :parent"
    if is_input is not None:
        where += f" and is_input = {int(is_input)}"
    if with_content:
        where += " and exists (select 1 from item_content c where c.item_rowid = item.rowid)"
    values = {"owner": owner, "parent": parent_id}
    found = paged(db, "item", where, values, page, order="position")
    return RowPage([_with_body(db, row) for row in found.rows], found.has_more)


def made(db: StoreConnection, owner: str, response_id: str) -> list[dict[str, Any]]:
    """The bodies of a response's output items, in order; purged ones are left out."""
    rows = fetch(
        db,
        "select body from item join item_content on item_rowid = item.rowid "
        "where owner = :owner and response_id = :id and not is_input order by position",
        {"owner": owner, "id": response_id},
    )
    return [json.loads(row["body"]) for row in rows]


def find(db: StoreConnection, owner: str, item_id: str) -> dict[str, Any] | None:
    """An item of this owner, whatever its parent. Purged content is None."""
    rows = fetch(
        db,
        "select * from item where owner = :owner and id = :id",
        {"owner": owner, "id": item_id},
    )
    return _with_body(db, rows[0]) if rows else None


def get(
    db: StoreConnection, owner: str, parent: Parent, parent_id: str, item_id: str
) -> dict[str, Any] | None:
    rows = fetch(
        db,
        f"select * from item where owner = :owner and {parent} = :parent and id = :id",
        {"owner": owner, "parent": parent_id, "id": item_id},
    )
    return _with_body(db, rows[0]) if rows else None


def delete(
    db: StoreConnection, owner: str, parent: Parent, parent_id: str, item_id: str
) -> bool | None:
    """Delete one item. False: it does not exist. None: it is under legal hold."""
    return remove(
        db,
        "item",
        f"owner = :owner and {parent} = :parent and id = :id",
        {"owner": owner, "parent": parent_id, "id": item_id},
    )


def _with_body(db: StoreConnection, row: dict[str, Any]) -> dict[str, Any]:
    content = db.execute(
        "select body from item_content where item_rowid = ?", (row["rowid"],)
    ).fetchone()
    return row | {"body": json.loads(content[0]) if content else None}
