"""Batches in the database: bounds, each line answered once, and what retention and erasure take."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

import pytest

from edgeagent.errors import Conflict, RateLimited
from edgeagent.store import batches, row_deletion, schema
from edgeagent.store.batches import BatchBounds, BatchLine, NewBatch, NewFile
from edgeagent.store.connection import connect
from edgeagent.store.ownership import TABLES, Selector, counts, held_counts, set_hold
from edgeagent.store.retention import Sweeper
from edgeagent.store.row_queries import fetch, is_removable
from edgeagent.types.list_pages import Page
from tests.store.rows import DAY, NOW, conversation, n_rows
from tests.store.test_retention import FakeClock

BOUNDS = BatchBounds(n_files=10, n_bytes=1000, n_open=2)


def add_file(db: Any, n: int = 1, *, owner: str = "ann", n_lines: int = 3, at: int = NOW) -> str:
    file = NewFile(
        id=f"file-{n}", owner=owner, name="a.jsonl", lines=[f"line {i}" for i in range(n_lines)]
    )
    batches.add_file(db, file, BOUNDS, now_ms=at)
    return file.id


def add_batch(
    db: Any, n: int = 1, *, owner: str = "ann", file: int = 1, at: int = NOW,
    metadata: dict[str, str] | None = None,
) -> str:  # fmt: skip
    batch = NewBatch(
        id=f"batch_{n}", owner=owner, key_id="key_1", endpoint="/v1/completions", window="24h",
        input_file_id=f"file-{file}", output_file_id=f"file-{n}o", error_file_id=f"file-{n}e",
        metadata=metadata or {"a": "b"}, expires_ms=at + DAY,
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


def test_a_batch_needs_room_for_its_files(conn):
    for n in range(1, 10):
        add_file(conn, n)
    with pytest.raises(RateLimited, match="a batch makes two"):
        add_batch(conn)
    assert n_rows(conn)["batch_file"] == 9


def test_batches_without_answers_are_forgotten_beyond_a_number(conn):
    add_file(conn)
    for n in range(1, 15):
        batch_id = add_batch(conn, n, at=NOW + n)
        batches.refuse(conn, batch_id, "{}", now_ms=NOW + n)
        batches.forget_files(conn, batch_id)
    left = {row[0] for row in conn.execute("select id from batch")}
    assert left == {f"batch_{n}" for n in range(4, 15)}, "as many as files, and the new one"


def test_a_file_is_read_some_lines_at_a_time(conn):
    add_file(conn, n_lines=5)
    assert [line.position for line in batches.some_lines(conn, "file-1", -1, 7)] == [0, 1]
    assert [line.position for line in batches.some_lines(conn, "file-1", 1, 99)] == [2, 3, 4]
    assert batches.some_lines(conn, "file-1", 4, 99) == []


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


def about(subject: str | None = None, conversation: Any = None) -> str:
    """A line whose request names a person, and a conversation."""
    body = {"metadata": {"subject": subject} if subject else None, "conversation": conversation}
    return json.dumps({"custom_id": "a", "body": body})


def deleted(db: Any, selector: Selector) -> dict[str, int]:
    """What an erasure deletes, as it does it."""
    found = {}
    for table in TABLES:
        where, key = selector.where(table), row_deletion.key_of(table)
        ids = [
            row[0]
            for row in db.execute(f"select {key} from {table} where {where}", selector.values())
        ]
        if ids:
            found[table] = row_deletion.delete(db, table, ids)[table]
    return found


def test_lines_about_a_subject_go_with_their_answers(conn):
    lines = [about("mr-17"), about("mr-18"), "{no json", about(conversation="conv_c")]
    lines.append(about(conversation={"id": "conv_d"}))
    batches.add_file(
        conn, NewFile(id="file-1", owner="ann", name="a", lines=lines), BOUNDS, now_ms=NOW
    )
    batch_id = add_batch(conn)
    assert batches.begin(conn, batch_id, 5, now_ms=NOW)
    assert sorted(batches.subjects(conn, "file-1")) == ["mr-17", "mr-18"]
    for position in range(4):
        batches.record(conn, batch_id, BatchLine(position, "one"), is_error=False)
    assert deleted(conn, Selector(subject="mr-17", owner="bob")) == {}
    assert deleted(conn, Selector(subject="mr-17", owner="ann")) == {"batch_line": 2}
    conversation(conn, "c", subject="mr-19")
    assert deleted(conn, Selector(subject="mr-19"))["batch_line"] == 2
    assert deleted(conn, Selector(conversation="conv_d")) == {"batch_line": 1}
    left = [line.position for line in batches.lines(conn, "file-1")]
    assert left == [1, 2]
    assert not batches.record(conn, batch_id, BatchLine(4, "late"), is_error=False), "it is erased"
    for file_id in ("file-1", "file-1o"):
        row = fetch(conn, "select n_bytes from batch_file where id = :id", {"id": file_id})[0]
        texts = [line.text for line in batches.lines(conn, file_id)]
        assert row["n_bytes"] == sum(len(text) + 1 for text in texts)


def test_a_batch_about_a_subject_goes_with_its_files(conn):
    add_file(conn)
    add_file(conn, 2)
    batch_id = add_batch(conn, metadata={"subject": "mr-17"})
    add_batch(conn, 2, file=2)
    batches.begin(conn, batch_id, 3, now_ms=NOW)
    batches.record(conn, batch_id, BatchLine(1, "one"), is_error=False)
    found = deleted(conn, Selector(subject="mr-17"))
    assert found == {"batch_line": 4, "batch_file": 3, "batch": 1}
    left = {row[0] for row in conn.execute("select id from batch_file")}
    assert left == {"file-2", "file-2o", "file-2e"}


def test_lines_on_legal_hold_stay_with_their_files(opened):
    store = opened()
    clock = FakeClock()
    Sweeper(store, b"k" * 32, {}, clock).sweep()
    old, lines = NOW - 40 * DAY, [about("mr-17"), about("mr-18")]

    def fill(db: Any) -> None:
        batches.add_file(
            db, NewFile(id="file-1", owner="ann", name="a", lines=lines), BOUNDS, now_ms=old
        )
        batch_id = add_batch(db, at=old)
        batches.begin(db, batch_id, 2, now_ms=old)
        batches.record(db, batch_id, BatchLine(0, "before"), is_error=False)
        assert set_hold(db, Selector(subject="mr-18"), True)["batch_line"] == 1
        batches.record(db, batch_id, BatchLine(1, "of a held line"), is_error=True)
        batches.end(db, batch_id, "completed", now_ms=old)

    def files(db: Any) -> set[str]:
        return {row[0] for row in db.execute("select id from batch_file")}

    store.write(fill).result()
    selector = Selector(owner="ann")
    assert store.read(lambda db: held_counts(db, selector)) == {
        "batch_line": 2, "batch_file": 2, "batch": 1,
    }  # fmt: skip
    target = "id = 'file-1'"
    assert store.read(lambda db: is_removable(db, "batch_file", target, {})) is None
    Sweeper(store, b"k" * 32, {"batches": 30}, clock).sweep()
    assert store.read(files) == {"file-1", "file-1e"}
    assert store.read(lambda db: got(db)["status"]) == "completed"
    store.write(lambda db: set_hold(db, selector, False)).result()
    Sweeper(store, b"k" * 32, {"batches": 30}, clock).sweep()
    assert store.read(files) == set() and store.read(n_rows).get("batch") is None


def test_batches_of_an_earlier_version_get_their_subjects(tmp_path):
    with closing(connect(tmp_path / "old.db", os.urandom(32), role="writer")) as db:
        for step in (schema.first, schema.second, schema.third, schema.fourth, schema.fifth):
            step(db)
        db.execute("insert into batch_file values ('file-1', 'ann', 'a', 'batch', 1, 1)")
        db.execute("insert into batch_file values ('file-o', 'ann', 'a', 'batch_output', 1, 1)")
        lines = [about("mr-17"), "{no json", about(conversation="conv_c")]
        for position, line in enumerate(lines):
            db.execute("insert into batch_line values ('file-1', ?, ?)", (position, line))
            db.execute("insert into batch_line values ('file-o', ?, 'an answer')", (position,))
        db.execute(
            "insert into batch (id, owner, key_id, endpoint, window, status, input_file_id, output_file_id, "
            "error_file_id, metadata, created_ms, expires_ms) values "
            "('b', 'ann', 'k', 'e', '1h', 'completed', 'file-1', 'file-o', 'file-e', ?, 1, 1)",
            (json.dumps({"subject": "mr-20"}),),
        )
        schema.sixth(db)
        schema.seventh(db)
        schema.eighth(db)
        schema.ninth(db)
        schema.tenth(db)
        assert deleted(db, Selector(subject="mr-17")) == {"batch_line": 2}
        assert deleted(db, Selector(conversation="conv_c")) == {"batch_line": 2}
        found = deleted(db, Selector(subject="mr-20"))
        assert found == {"batch_line": 2, "batch_file": 2, "batch": 1}


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
