"""How far this database has applied the journal: a record in the database, and thus in its backups.

An act marks its entry in the transaction that carries it out. Acts may finish out of order (an erasure
takes minutes), so entries that are applied after a gap are listed.
"""

from __future__ import annotations

import msgspec

from edgeagent.store.journal import JournalContents, JournalPosition
from edgeagent.store.sql import Connection, scalar

CHECKPOINT = "journal"


class JournalProgress(msgspec.Struct, frozen=True):
    """All entries up to `place.n` are applied, and those in `done`."""

    place: JournalPosition
    done: list[int] = []

    @property
    def newest_n(self) -> int:
        return max([self.place.n, *self.done])


def read(conn: Connection) -> JournalProgress | None:
    """The progress of this database; None if it is new or older than journals."""
    body = scalar(conn, "select body from checkpoint where name = ?", (CHECKPOINT,))
    try:
        return msgspec.json.decode(body, type=JournalProgress) if body else None
    except msgspec.MsgspecError:
        return None


def write(conn: Connection, mark: JournalProgress) -> None:
    body = msgspec.json.encode(mark).decode()
    conn.execute("insert or replace into checkpoint values (?, ?)", (CHECKPOINT, body))


def mark_applied(conn: Connection, contents: JournalContents, *numbers: int) -> None:
    """Mark entries of `contents` as applied, in the caller's transaction."""
    before = read(conn)
    if before is None or before.place.id != contents.base.id:
        before = JournalProgress(
            JournalPosition(contents.base.id, contents.base.n, contents.base.mac)
        )
    done = {*before.done, *numbers}
    n = before.place.n
    while n + 1 in done and contents.mac_at(n + 1) is not None:
        n += 1
    mac = contents.mac_at(n) or before.place.mac
    left = sorted(each for each in done if each > n)
    write(conn, JournalProgress(JournalPosition(contents.base.id, n, mac), left))
