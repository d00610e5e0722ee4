"""Batches in the database: bounds, each line answered once, and what retention and erasure take."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.errors import Conflict, RateLimited
from edgeagent.store import batches, row_deletion
from edgeagent.store.batches import BatchBounds, BatchLine, NewBatch, NewFile
from edgeagent.store.ownership import TABLES, Selector, counts
from edgeagent.store.retention import Sweeper
from edgeagent.types.pages import Page
from tests.store.rows import DAY, NOW, n_rows
from tests.store.test_retention import FakeClock

BOUNDS = BatchBounds(n_files=10, n_bytes=1000, n_open=2)


def add_file(db: Any, n: int = 1, *, owner: str = "ann", n_lines: int = 3, at: int = NOW) -> str:
    file = NewFile(
        id=f"file-{n}", owner=owner, name="a.jsonl", lines=[f"line {i}" for i in range(n_lines)]
    )
    batches.add_file(db, file, BOUNDS, now_ms=at)
    return file.id


def add_batch(db: Any, n: int = 1, *, owner: str = "ann", file: int = 1, at: int = NOW) -> str:
    batch = NewBatch(
        id=f"batch_{n}", owner=owner, key_id="key_1", endpoint="/v1/completions", window="24h",
        input_file_id=f"file-{file}", output_file_id=f"file-{n}o", error_file_id=f"file-{n}e",
        metadata={"a": "b"}, expires_ms=at + DAY,
    )  # fmt: skip
    batches.add(db, batch, BOUNDS, now_ms=at)
    return batch.id


def made(db: Any) -> str:
    """A batch whose three lines may be done."""
    add_file(db)
    batch_id = add_batch(db)
    assert batches.begin(db, batch_id, 3, now_ms=NOW)
    return batch_id


def got(db: Any, batch_id: str = "batch_1") -> dict[str, Any]:
    found = batches.get(db, batch_id, "ann")
    assert found is not None
    return found


def test_each_line_is_answered_once_and_counted(conn):
    batch_id = made(conn)
    assert [line.position for line in batches.open_lines(conn, batch_id, 9)] == [0, 1, 2]
    assert [line.position for line in batches.open_lines(conn, batch_id, 9, [0, 2])] == [1]
    assert batches.record(conn, batch_id, BatchLine(1, "one"), is_error=False)
    assert not batches.record(conn, batch_id, BatchLine(1, "again"), is_error=True)
    assert batches.record(conn, batch_id, BatchLine(0, "bad"), is_error=True)
    assert batches.open_lines(conn, batch_id, 9) == [(2, "line 2")]
    row = got(conn)
    assert (row["n_completed"], row["n_failed"], row["output_bytes"], row["error_bytes"]) == (
        1, 1, 4, 4,
    )  # fmt: skip
    assert batches.lines(conn, "file-1o") == [(1, "one")]


def test_files_of_answers_are_shown_once_the_batch_has_ended(conn):
    batch_id = made(conn)
    batches.record(conn, batch_id, BatchLine(1, "one"), is_error=False)
    assert batches.file(conn, "ann", "file-1o") is None
    assert len(batches.files(conn, "ann", Page()).rows) == 1
    assert batches.end(conn, batch_id, "completed", now_ms=NOW + 5)
    batches.forget_files(conn, batch_id)
    assert batches.file(conn, "ann", "file-1o") is not None
    assert batches.file(conn, "ann", "file-1e") is None, "it stayed empty"
    assert batches.file(conn, "bob", "file-1o") is None
    assert got(conn)["completed_ms"] == NOW + 5
    assert not batches.end(conn, batch_id, "cancelled", now_ms=NOW)


def test_a_batch_that_has_ended_or_is_gone_takes_no_answers(conn):
    batch_id = made(conn)
    assert batches.cancel(conn, "ann", batch_id, now_ms=NOW)
    assert not batches.cancel(conn, "ann", batch_id, now_ms=NOW)
    assert batches.open_lines(conn, batch_id, 9) == []
    assert batches.record(conn, batch_id, BatchLine(0, "in flight"), is_error=False)
    batches.end(conn, batch_id, "cancelled", now_ms=NOW)
    assert not batches.record(conn, batch_id, BatchLine(1, "late"), is_error=False)
    assert not batches.record(conn, "batch_9", BatchLine(1, "late"), is_error=False)
    assert batches.unfinished(conn) == []


def test_owners_have_bounds(conn):
    add_file(conn, n_lines=100)  # 790 bytes
    with pytest.raises(RateLimited, match="at most 10 files with 1000 bytes"):
        add_file(conn, 2, n_lines=50)
    add_file(conn, 3, owner="bob", n_lines=50)
    add_batch(conn, 1)
    add_batch(conn, 2)
    with pytest.raises(RateLimited, match="2 batches that have not ended"):
        add_batch(conn, 3)


def test_the_input_of_an_open_batch_is_in_use(conn):
    batch_id = made(conn)
    with pytest.raises(Conflict, match="cancel the batch"):
        batches.check_unused(conn, "ann", "file-1")
    batches.end(conn, batch_id, "cancelled", now_ms=NOW)
    batches.check_unused(conn, "ann", "file-1")


def test_a_refused_input_ends_the_batch(conn):
    add_file(conn)
    batch_id = add_batch(conn)
    batches.refuse(conn, batch_id, '{"data": []}', now_ms=NOW)
    assert got(conn)["status"] == "failed" and not batches.begin(conn, batch_id, 3, now_ms=NOW)


def test_everything_of_an_owner_is_found_and_deleted(conn):
    batch_id = made(conn)
    batches.record(conn, batch_id, BatchLine(1, "one"), is_error=False)
    add_file(conn, 2, owner="bob")
    selector = Selector(owner="ann")
    found = counts(conn, selector)
    assert (found["batch"], found["batch_file"], found["batch_line"]) == (1, 3, 4)
    for table in TABLES:
        key = row_deletion.key_of(table)
        where, values = selector.where(table), selector.values()
        rows = conn.execute(f"select {key} from {table} where {where}", values).fetchall()
        if rows:
            row_deletion.delete(conn, table, [row[0] for row in rows])
    assert n_rows(conn) == {"batch_file": 1, "batch_line": 3}


def test_retention_deletes_old_files_and_spares_those_of_open_batches(opened):
    store = opened()
    clock = FakeClock()
    Sweeper(store, b"k" * 32, {}, clock).sweep()  # which knows the clock from then on
    old = NOW - 40 * DAY

    def fill(db: Any) -> None:
        add_file(db, 1, at=old)
        add_file(db, 2, at=old)
        add_file(db, 3, at=NOW - DAY)
        add_batch(db, 1, file=1, at=old)
        add_batch(db, 2, file=2, at=old)
        batches.end(db, "batch_2", "completed", now_ms=old)

    store.write(fill).result()
    swept = Sweeper(store, b"k" * 32, {"batches": 30}, clock).sweep()
    assert swept.deleted["batch"] == 1 and swept.deleted["batch_file"] == 3
    left = store.read(lambda db: {row[0] for row in db.execute("select id from batch_file")})
    assert left == {"file-1", "file-1o", "file-1e", "file-3"}
