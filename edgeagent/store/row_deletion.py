"""Deletes rows with everything that belongs to them, a few at a time, and cleans up their remains.

Deleting is not erasing: SQLite keeps old pages in its log, and FTS5 keeps the words of deleted rows in its
index until it merges. `mark` records in the deleting transaction that cleaning is due; the record is
removed when `clean` has finished, so after a crash the next start cleans up.

Measured (SQLite 3.53.4, 2026-11): after `delete from item_fts` the words are still in its pages; FTS5's
`merge` with -16 and then 16 until nothing changes clears them as well as `optimize` does, but in steps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from edgeagent.store.sql import Connection, marks, scalar

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 100  # rows per transaction: about 15 ms, so that other writes hardly wait
RESIDUE = "residue"
SEARCHES = ("item_fts", "segment_fts", "chunk_fts")
_MERGE_PAGES = 64
_SEARCH_OF = {"item": "item_fts", "segment": "segment_fts", "chunk": "chunk_fts"}
_CONTENT_OF = {
    "item": ("item_content", "item_rowid"),
    "segment": ("segment_content", "segment_rowid"),
    "feedback": ("feedback_content", "feedback_rowid"),
    "response": ("response_content", "response_id"),
}


_BY_ROWID = {
    "item", "segment", "feedback", "request", "decision", "batch_line", "chunk", "document_part",
}  # fmt: skip


class Store(Protocol):
    """The part of `Database` that long work needs: short writes with others in between."""

    def write(self, fn: Callable[[Any], T], *, essential: bool = False) -> Future[T]: ...

    def read(self, fn: Callable[[Any], T]) -> T: ...

    def checkpoint(self) -> Future[bool]: ...


def key_of(table: str) -> str:
    return "rowid" if table in _BY_ROWID else "id"


def delete(conn: Connection, table: str, ids: Sequence[Any]) -> Counter[str]:
    """Delete rows with their content and search entries. Returns the number of rows by table.

    Rows that depend on these are deleted by foreign keys, uncounted: delete those first, in the order of
    `ownership.TABLES`.
    """
    done = delete_content(conn, table, ids)
    found = conn.execute(f"delete from {table} where {key_of(table)} in ({marks(len(ids))})", ids)
    done[table] = int(found.rowcount)
    return done


def delete_content(conn: Connection, table: str, ids: Sequence[Any]) -> Counter[str]:
    """Delete the content of rows, and keep the rows."""
    done: Counter[str] = Counter()
    if table in _SEARCH_OF:  # triggers of the schema delete these with the content
        search = _SEARCH_OF[table]
        there = f"select count(*) from {search} where rowid in ({marks(len(ids))})"
        done[search] = int(scalar(conn, there, ids))
    if table in _CONTENT_OF:
        content, key = _CONTENT_OF[table]
        found = conn.execute(f"delete from {content} where {key} in ({marks(len(ids))})", ids)
        done[content] = int(found.rowcount)
    return done


def prepare(conn: Connection) -> None:
    """Turn off FTS5's automatic merging during deletions, since `clean` merges in steps.

    By default it merges a segment once a tenth of it is deleted, within the deleting write: erasing 20,000
    items delayed other writers by up to 932 ms, without it by up to 82 ms (batches of 200 rows, x86-64 VM
    with 2 cores, 2026-11).
    """
    for search in SEARCHES:
        sql = f"select v from {search}_config where k = 'deletemerge'"
        if scalar(conn, sql) != 0:
            conn.execute(f"insert into {search} ({search}, rank) values ('deletemerge', 0)")


def mark(conn: Connection) -> None:
    """Record, in the deleting transaction, that remains must be cleaned up."""
    conn.execute(
        "insert into checkpoint values (?, '1') "
        "on conflict (name) do update set body = cast(body as integer) + 1",
        (RESIDUE,),
    )


def marked(conn: Connection) -> str | None:
    """The last record of `mark`; None if everything is clean."""
    found: str | None = scalar(conn, "select body from checkpoint where name = ?", (RESIDUE,))
    return found


def clean(store: Store, tell: Callable[[int], object] = lambda _n: None) -> bool:
    """Merge deleted words out of the search indexes and truncate the log. False: a reader held the log.

    Blocks; other writers run between the steps. `tell` gets the number of finished steps.
    """
    note = store.read(marked)
    n_steps = 0
    for search in SEARCHES:
        n_pages = -_MERGE_PAGES  # negative: begin to merge everything into one
        while store.write(partial(_merge, search=search, n_pages=n_pages), essential=True).result():
            n_pages = _MERGE_PAGES
            n_steps += 1
            tell(n_steps)
    if not store.checkpoint().result():
        return False
    # If rows were deleted meanwhile, the record has changed and stays for the next time.
    store.write(partial(_unmark, note=note), essential=True).result()
    return True


def _unmark(conn: Connection, note: str | None) -> None:
    conn.execute("delete from checkpoint where name = ? and body = ?", (RESIDUE, note))


def _merge(conn: Connection, search: str, n_pages: int) -> bool:
    """One step of FTS5's merge. Returns whether there is more to do."""
    before = scalar(conn, "select total_changes()")
    conn.execute(f"insert into {search} ({search}, rank) values ('merge', ?)", (n_pages,))
    # According to FTS5's documentation, a merge that changes fewer than 2 rows found nothing to merge.
    # The first call may only prepare the structure.
    return n_pages < 0 or scalar(conn, "select total_changes()") - before >= 2
