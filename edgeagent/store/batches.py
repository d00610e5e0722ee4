"""Batches of requests, and the files with their lines. Functions run inside `Database.write` or `read`.

    file -> batch: validating -> in_progress -> finalizing -> completed
                       |             |-> cancelling -> cancelled
                       `-> failed    `-> expired

A line of the input that was answered has a line with the same position in the output or the error file, made
in the transaction that counts it: after a crash the lines without one are still to be done. The files of the
answers are there from the start, and shown once the batch has ended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from edgeagent.errors import Conflict, RateLimited
from edgeagent.store import row_deletion
from edgeagent.store.batch_schema import CONVERSATION, SUBJECT
from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged, subject_of
from edgeagent.store.sql import marks, scalar
from edgeagent.types.list_pages import Page, RowPage

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
]  # fmt: skip
OPEN: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
FULL_RETRY_S = 60.0


class BatchBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner may have: files, bytes in them, and batches that have not ended."""

    n_files: int
    n_bytes: int
    n_open: int


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of requests, by its lines."""

    id: str
    owner: str
    name: str
    lines: list[str]


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that waits to be looked through. `key_id`: the key under whose limits it is done."""

    id: str
    owner: str
    key_id: str
    endpoint: str
    window: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    metadata: dict[str, str]
    expires_ms: int


class BatchLine(NamedTuple):
    """One line of a file, by its position."""

    position: int
    text: str


# ---- files


def add_file(db: StoreConnection, file: NewFile, bounds: BatchBounds, *, now_ms: int) -> None:
    """Store a file of requests. Raises: RateLimited beyond the bounds of the owner."""
    n_bytes = sum(len(line.encode()) + 1 for line in file.lines)
    has_files, has_bytes = n_files_of(db, file.owner), n_bytes_of(db, file.owner)
    if has_files >= bounds.n_files or has_bytes + n_bytes > bounds.n_bytes:
        raise RateLimited(
            f"This owner has {has_files} files with {has_bytes} bytes, this one has {n_bytes}; at most "
            f"{bounds.n_files} files with {bounds.n_bytes} bytes are kept: delete some, or raise "
            "batch.max_files and batch.max_owner_bytes.",
            retry_after_s=FULL_RETRY_S,
        )
    _add_file(db, file.id, file.owner, file.name, "batch", n_bytes, now_ms)
    for position, line in enumerate(file.lines):
        db.execute(
            _ADD_LINE,
            {"file_id": file.id, "position": position, "body": line},
        )


def n_files_of(db: StoreConnection, owner: str) -> int:
    """How many files the owner has, those of answers included."""
    return int(scalar(db, "select count(*) from batch_file where owner = ?", (owner,)))


def n_bytes_of(db: StoreConnection, owner: str) -> int:
    """How many bytes the files of the owner have."""
    sql = "select coalesce(sum(n_bytes), 0) from batch_file where owner = ?"
    return int(scalar(db, sql, (owner,)))


_ADD_LINE = f"""insert into batch_line (file_id, position, body, subject, conversation)
    values (:file_id, :position, :body, {SUBJECT.format(body=":body")},
    {CONVERSATION.format(body=":body")})"""


def subjects(db: StoreConnection, file_id: str) -> list[str]:
    """Whom the requests of a file are about."""
    found = db.execute(
        "select distinct subject from batch_line where file_id = ? and subject is not null",
        (file_id,),
    ).fetchall()
    return [row[0] for row in found]


def _add_file(
    db: StoreConnection,
    file_id: str,
    owner: str,
    name: str,
    purpose: str,
    n_bytes: int,
    now_ms: int,
) -> None:
    db.execute(
        "insert into batch_file (id, owner, name, purpose, n_bytes, created_ms) values (?, ?, ?, ?, ?, ?)",
        (file_id, owner, name, purpose, n_bytes, now_ms),
    )


# A file of answers is shown once its batch has ended, if there is anything in it.
SHOWN = f"""owner = :owner and (purpose = 'batch' or (n_bytes > 0 and not exists (
    select 1 from batch b where batch_file.id in (b.output_file_id, b.error_file_id)
    and b.status in ({", ".join(f"'{status}'" for status in OPEN)}))))"""


def file(db: StoreConnection, owner: str, file_id: str) -> dict[str, Any] | None:
    rows = fetch(
        db, f"select * from batch_file where id = :id and {SHOWN}", {"id": file_id, "owner": owner}
    )
    return rows[0] if rows else None


def files(db: StoreConnection, owner: str, page: Page, purpose: str | None = None) -> RowPage:
    """The owner's files by age."""
    where = SHOWN if purpose is None else f"{SHOWN} and purpose = :purpose"
    values = {"owner": owner, "purpose": purpose}
    return paged(db, "batch_file", where, values, page, order="created_ms")


def lines(db: StoreConnection, file_id: str) -> list[BatchLine]:
    """All lines of a file, in order."""
    found = db.execute(
        "select position, body from batch_line where file_id = ? order by position", (file_id,)
    ).fetchall()
    return [BatchLine(*row) for row in found]


def some_lines(db: StoreConnection, file_id: str, after: int, n_bytes: int) -> list[BatchLine]:
    """The lines of a file behind a position, until they have so many bytes; none at its end."""
    cursor = db.execute(
        "select position, body from batch_line where file_id = ? and position > ? order by position",
        (file_id, after),
    )
    found: list[BatchLine] = []
    while n_bytes > 0 and (row := cursor.fetchone()) is not None:
        found.append(BatchLine(*row))
        n_bytes -= len(row[1])
    cursor.close()
    return found


def check_unused(db: StoreConnection, owner: str, file_id: str) -> None:
    """Raises: Conflict for the input of a batch that has not ended."""
    n_using = scalar(
        db,
        "select count(*) from batch where owner = ? and input_file_id = ? "
        f"and status in ({marks(len(OPEN))})",
        (owner, file_id, *OPEN),
    )
    if n_using:
        raise Conflict(
            f"{file_id} is the input of a batch that has not ended: cancel the batch first."
        )


# ---- batches


def add(db: StoreConnection, batch: NewBatch, bounds: BatchBounds, *, now_ms: int) -> None:
    """Store a batch and the empty files of its answers. Raises: RateLimited beyond the bounds."""
    n_open = scalar(
        db,
        f"select count(*) from batch where owner = ? and status in ({marks(len(OPEN))})",
        (batch.owner, *OPEN),
    )
    if n_open >= bounds.n_open:
        raise RateLimited(
            f"This owner has {n_open} batches that have not ended, at most {bounds.n_open} are taken: wait "
            "until one ends, or cancel one.",
            retry_after_s=FULL_RETRY_S,
        )
    n_files = n_files_of(db, batch.owner)
    if n_files + 2 > bounds.n_files:
        raise RateLimited(
            f"This owner has {n_files} files, at most {bounds.n_files} are kept, and a batch makes two: "
            "delete some, or raise batch.max_files.",
            retry_after_s=FULL_RETRY_S,
        )
    _forget_oldest(db, batch.owner, bounds.n_files)
    for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "errors")):
        _add_file(db, file_id, batch.owner, f"{batch.id}_{name}.jsonl", "batch_output", 0, now_ms)
    db.execute(
        "insert into batch (id, owner, key_id, endpoint, window, status, input_file_id, output_file_id, "
        "error_file_id, metadata, subject, created_ms, expires_ms) "
        "values (?, ?, ?, ?, ?, 'validating', ?, ?, ?, ?, ?, ?, ?)",
        (
            batch.id, batch.owner, batch.key_id, batch.endpoint, batch.window, batch.input_file_id,
            batch.output_file_id, batch.error_file_id, json.dumps(batch.metadata, ensure_ascii=False),
            subject_of(batch.metadata), now_ms, batch.expires_ms,
        ),
    )  # fmt: skip


def _forget_oldest(db: StoreConnection, owner: str, n_kept: int) -> None:
    """Delete the oldest batches that have ended and have no answers, beyond so many."""
    done = db.execute(
        "delete from batch where id in (select id from batch b where owner = ? "
        f"and status not in ({marks(len(OPEN))}) and not exists ("
        "select 1 from batch_file f where f.id in (b.output_file_id, b.error_file_id)) "
        "order by created_ms desc, id desc limit -1 offset ?)",
        (owner, *OPEN, n_kept),
    )
    if done.rowcount:
        row_deletion.mark(db)


def get(db: StoreConnection, batch_id: str, owner: str | None = None) -> dict[str, Any] | None:
    """A batch, of this owner where one is given, with the bytes of its answers."""
    whose = "" if owner is None else " and owner = :owner"
    rows = fetch(
        db, f"select * from {_BATCHES} where id = :id{whose}", {"id": batch_id, "owner": owner}
    )
    return rows[0] if rows else None


_BATCHES = """(select b.*, (select n_bytes from batch_file where id = b.output_file_id) as output_bytes,
    (select n_bytes from batch_file where id = b.error_file_id) as error_bytes from batch b)"""


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    """The owner's batches by age."""
    return paged(db, _BATCHES, "owner = :owner", {"owner": owner}, page, order="created_ms")


def unfinished(db: StoreConnection) -> list[str]:
    """Ids of the batches that have not ended, the oldest first."""
    found = db.execute(
        f"select id from batch where status in ({marks(len(OPEN))}) order by created_ms, id", OPEN
    ).fetchall()
    return [row[0] for row in found]


def begin(db: StoreConnection, batch_id: str, n_total: int, *, now_ms: int) -> bool:
    """The input is sound: let its lines be done. False: the batch is not validating any more."""
    done = db.execute(
        "update batch set status = 'in_progress', n_total = ?, in_progress_ms = ? "
        "where id = ? and status = 'validating'",
        (n_total, now_ms, batch_id),
    )
    return bool(done.rowcount)


def refuse(db: StoreConnection, batch_id: str, errors: str, *, now_ms: int) -> None:
    """The input is not sound: the batch has failed. `errors` is JSON."""
    db.execute(
        "update batch set status = 'failed', errors = ?, failed_ms = ? "
        f"where id = ? and status in ({marks(len(OPEN))})",
        (errors, now_ms, batch_id, *OPEN),
    )


def open_lines(
    db: StoreConnection, batch_id: str, limit: int, besides: Sequence[int] = ()
) -> list[BatchLine]:
    """The next lines that have no answer yet, besides those that are being done."""
    found = db.execute(
        "select i.position, i.body from batch b join batch_line i on i.file_id = b.input_file_id "
        "where b.id = ? and b.status = 'in_progress' and not exists (select 1 from batch_line o "
        "where o.file_id in (b.output_file_id, b.error_file_id) and o.position = i.position) "
        f"and i.position not in ({marks(len(besides))}) order by i.position limit ?",
        (batch_id, *besides, limit),
    ).fetchall()
    return [BatchLine(*row) for row in found]


def record(db: StoreConnection, batch_id: str, line: BatchLine, *, is_error: bool) -> bool:
    """Store the answer to a line. False: the batch has ended or is gone, or the line has an answer or was
    erased."""
    column, count = ("error_file_id", "n_failed") if is_error else ("output_file_id", "n_completed")
    rows = db.execute(
        f"select {column}, input_file_id from batch b where id = ? "
        "and status in ('in_progress', 'cancelling') "
        "and not exists (select 1 from batch_line o where o.position = ? "
        "and o.file_id in (b.output_file_id, b.error_file_id))",
        (batch_id, line.position),
    ).fetchall()
    if not rows:
        return False
    file_id, input_file_id = rows[0]
    done = db.execute(
        "insert into batch_line (file_id, position, body, subject, conversation, is_held) "
        "select ?, position, ?, subject, conversation, is_held from batch_line "
        "where file_id = ? and position = ?",
        (file_id, line.text, input_file_id, line.position),
    )
    if not done.rowcount:
        return False
    db.execute(
        "update batch_file set n_bytes = n_bytes + ? where id = ?",
        (len(line.text.encode()) + 1, file_id),
    )
    db.execute(f"update batch set {count} = {count} + 1 where id = ?", (batch_id,))
    return True


def cancel(db: StoreConnection, owner: str, batch_id: str, *, now_ms: int) -> bool:
    """Let a batch end that has not ended. False: there is nothing to cancel."""
    done = db.execute(
        "update batch set status = 'cancelling', cancelling_ms = ? "
        "where id = ? and owner = ? and status in ('validating', 'in_progress')",
        (now_ms, batch_id, owner),
    )
    return bool(done.rowcount)


def end(
    db: StoreConnection,
    batch_id: str,
    status: Literal["completed", "cancelled", "expired"],
    *,
    now_ms: int,
) -> bool:
    """End a batch. False: it had ended, or is gone."""
    done = db.execute(
        f"update batch set status = ?, {status}_ms = ?, finalizing_ms = coalesce(finalizing_ms, ?) "
        f"where id = ? and status in ({marks(len(OPEN))})",
        (status, now_ms, now_ms, batch_id, *OPEN),
    )
    return bool(done.rowcount)


def forget_files(db: StoreConnection, batch_id: str) -> None:
    """Delete the files of a batch's answers that stayed empty."""
    done = db.execute(
        "delete from batch_file where n_bytes = 0 and purpose = 'batch_output' and id in ("
        "select output_file_id from batch where id = :id union all "
        "select error_file_id from batch where id = :id)",
        {"id": batch_id},
    )
    if done.rowcount:
        row_deletion.mark(db)
