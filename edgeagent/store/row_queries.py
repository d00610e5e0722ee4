"""Functions that the row modules share: queries by column name, deletion, pages."""

from __future__ import annotations

from typing import Any

from edgeagent.store import row_deletion
from edgeagent.store.connection import StoreConnection
from edgeagent.store.ownership import HELD
from edgeagent.types.list_pages import Page, RowPage


def subject_of(metadata: dict[str, str] | None) -> str | None:
    """Whom a row with this metadata is about; None where it names nobody."""
    return (metadata or {}).get("subject") or None


def fetch(db: StoreConnection, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a query as dicts by column name."""
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def remove(db: StoreConnection, table: str, where: str, values: dict[str, Any]) -> bool | None:
    """Delete one row with everything that belongs to it. False: it does not exist. None: it is under legal
    hold.

    `table` and `where` are our own text. The next sweep cleans up its remains in the log and the search
    index.
    """
    can_go = is_removable(db, table, where, values)
    if can_go:
        row_deletion.mark(db)
        db.execute(f"delete from {table} where {where}", values)
    return can_go


def is_removable(
    db: StoreConnection, table: str, where: str, values: dict[str, Any]
) -> bool | None:
    """Whether `remove` would delete the row. False: it does not exist. None: it is under legal hold."""
    rows = fetch(db, f"select {HELD[table]} as is_held from {table} where {where}", values)
    if not rows:
        return False
    return None if rows[0]["is_held"] else True


def paged(
    db: StoreConnection, table: str, where: str, values: dict[str, Any], page: Page, *, order: str
) -> RowPage:
    """A page of `table` sorted by the integer column `order`, then by id.

    `table`, `where` and `order` are our own text; client input is in `values`. If `after` is not among the
    rows, the page is empty.
    """
    compare, direction = ("<", "desc") if page.is_descending else (">", "asc")
    after = ""
    if page.after is not None:
        after = (
            f" and ({order}, id) {compare} (select {order}, id from {table} "
            f"where id = :after and {where})"
        )
    rows = fetch(
        db,
        f"select * from {table} where {where}{after} order by {order} {direction}, id {direction} "
        "limit :limit",
        values | {"after": page.after, "limit": page.limit + 1},
    )
    return RowPage(rows[: page.limit], len(rows) > page.limit)
