"""Deletes one row at its client's request, so that no older copy of the database brings it back.

    1. check that the row exists and is not under legal hold; otherwise write nothing, so that guessing
       ids causes no writes
    2. add an entry to the journal, with a keyed pseudonym of the row's kind and id
    3. in one transaction, delete the row and mark the entry as applied

Then the deletion may be acknowledged. It costs one more fsync than a plain deletion. A deletion that fails
after step 2 is withdrawn; one that a kill interrupts is completed at the next start
(store/journal_replay.py). Both writes may use the disk reserve, since deleting is how a client makes room.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from edgeagent.errors import EdgeAgentError
from edgeagent.store import journal_progress, row_deletion, row_queries
from edgeagent.store.connection import StoreConnection
from edgeagent.store.journal import Journal, JournalContents, JournalEntry
from edgeagent.store.sql import marks

Table = Literal[
    "response", "conversation", "item", "transcript", "batch_file", "document", "vector_store",
    "vector_store_file",
]  # fmt: skip
TABLES: tuple[Table, ...] = (
    "response", "conversation", "item", "transcript", "batch_file", "document", "vector_store",
    "vector_store_file",
)  # fmt: skip
BATCH = row_deletion.BATCH


class DeletionStore(row_deletion.Store, Protocol):
    """The part of `Database` that deleting needs."""

    @property
    def journal(self) -> Journal: ...


@dataclass(frozen=True)
class DeletionTarget:
    """One row of an owner; for an item, also its conversation."""

    table: Table
    id: str
    owner: str
    conversation: str | None = None

    @property
    def where(self) -> str:
        inside = " and conversation_id = :conversation" if self.table == "item" else ""
        return f"id = :id and owner = :owner{inside}"

    @property
    def values(self) -> dict[str, Any]:
        given: dict[str, Any] = {"id": self.id, "owner": self.owner}
        return given | {"conversation": self.conversation} if self.table == "item" else given


def delete(store: DeletionStore, target: DeletionTarget) -> bool | None:
    """Delete a row with everything that belongs to it. Blocks.

    True: the deletion is on disk. False: there is no such row. None: the row is under legal hold. Raises:
    StoreLocked if there is no sound journal; StorageFull, StorageFailed.
    """
    can_go = store.read(
        lambda db: row_queries.is_removable(db, target.table, target.where, target.values)
    )
    if not can_go:
        return can_go
    journal = store.journal
    entered = journal.append("delete", entry_of(journal, target.table, target.id))
    n = entered.head.n

    def remove(db: StoreConnection) -> bool | None:
        done = row_queries.remove(db, target.table, target.where, target.values)
        if done is not None:
            journal_progress.mark_applied(db, entered, n)
        return done

    try:
        done = store.write(remove, essential=True).result()
    except Exception:
        _withdraw(journal, n)
        raise
    if done is None:  # it was put under legal hold meanwhile
        _withdraw(journal, n)
    return done


def entry_of(journal: Journal, table: Table, row_id: str) -> str:
    """The content of the journal entry for a deleted row."""
    return f"{table}:{journal.pseudonym(table, row_id)}"


def present(
    db: StoreConnection, journal: Journal, entries: Iterable[JournalEntry]
) -> dict[int, tuple[str, str]]:
    """The rows of this database that deletion entries name: (table, id) by entry number."""
    wanted: dict[str, dict[str, int]] = defaultdict(dict)
    for entry in entries:
        table, _, _tag = entry.what.partition(":")
        wanted[table][entry.what] = entry.n
    found: dict[int, tuple[str, str]] = {}
    for table in TABLES:
        if table not in wanted:
            continue
        for (row_id,) in db.execute(f"select id from {table}").fetchall():
            n = wanted[table].get(entry_of(journal, table, row_id))
            if n is not None:
                found[n] = table, row_id
    return found


def delete_again(
    db: StoreConnection,
    contents: JournalContents,
    entries: list[JournalEntry],
    found: dict[int, tuple[str, str]],
) -> int:
    """Delete the rows that these entries name and mark the entries, in the caller's transaction. Returns
    how many rows existed. A legal hold does not protect them: they were not under hold when they were
    deleted.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.n in found and entry.n not in contents.abandoned:
            table, row_id = found[entry.n]
            ids[table].append(row_id)
    n_rows = 0
    for table, each in ids.items():
        sql = f"delete from {table} where id in ({marks(len(each))})"
        n_rows += int(db.execute(sql, each).rowcount)
    if n_rows:
        row_deletion.mark(db)
    journal_progress.mark_applied(db, contents, *(entry.n for entry in entries))
    return n_rows


def _withdraw(journal: Journal, n: int) -> None:
    with contextlib.suppress(EdgeAgentError):
        journal.append("abandon", str(n))
