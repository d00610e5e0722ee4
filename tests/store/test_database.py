"""The database as its users see it: acknowledged is durable, one failure is one failure, reads go on."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from edgeagent.errors import KeyUnusable, StoreUnusable
from edgeagent.store.connection import IntegrityError, check_sqlite
from edgeagent.store.database_files import StoreLock
from edgeagent.store.sql import scalar
from edgeagent.store.store_key import Secret
from tests.store.conftest import insert, texts


def test_an_acknowledged_write_is_there_after_opening_again(opened):
    store = opened()
    assert store.write(insert("kept")).result() == 1
    store.close()
    assert opened().read(texts) == ["kept"]


def test_the_connections_are_set_as_promised(opened):
    store = opened()
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "temp_store": 2,
        "mmap_size": 0,
        "trusted_schema": 0,
        "auto_vacuum": 2,
    }
    found = store.write(
        lambda db: {name: scalar(db, f"PRAGMA {name}") for name in expected}
    ).result()
    assert found == expected
    assert store.read(lambda db: scalar(db, "PRAGMA query_only")) == 1
    assert store.read(lambda db: scalar(db, "PRAGMA cipher_status")) == "1"


def test_an_sqlite_with_the_wal_reset_bug_is_refused():
    check_sqlite((3, 51, 3))
    with pytest.raises(StoreUnusable, match=r"3\.51\.2 .* the oldest safe version is 3\.51\.3"):
        check_sqlite((3, 51, 2))


def test_32_threads_write_and_every_row_is_there_in_far_fewer_commits(opened):
    store = opened()
    before = store.counts()

    def work(name: int) -> None:
        for n in range(40):
            store.write(insert(f"{name}-{n}")).result()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = store.counts()
    assert counts["n_writes"] - before["n_writes"] == 1280
    assert counts["n_commits"] - before["n_commits"] < 640
    store.close()
    assert set(opened().read(texts)) == {f"{name}-{n}" for name in range(32) for n in range(40)}


def test_a_read_sees_what_was_acknowledged_before_it(opened):
    store = opened()
    for n in range(50):
        store.write(insert(str(n))).result()
        assert len(store.read(texts)) == n + 1


def test_a_reader_cannot_write(opened):
    store = opened()
    with pytest.raises(Exception, match="readonly"):
        store.read(insert("no"))
    assert store.read(texts) == []


async def test_the_event_loop_writes_and_reads_without_blocking(opened):
    store = opened()
    ids = await asyncio.gather(*(store.write_async(insert(str(n))) for n in range(200)))
    assert sorted(ids) == list(range(1, 201))
    assert len(await store.read_async(texts)) == 200


async def test_an_error_of_a_closure_reaches_the_task_that_sent_it(opened):
    store = opened()
    await store.write_async(insert("twice"))
    with pytest.raises(IntegrityError):
        await store.write_async(insert("twice"))


def test_a_write_cancelled_before_it_begins_does_not_happen(opened):
    store = opened()
    begun, gate = threading.Event(), threading.Event()
    store.write(lambda db: begun.set() or gate.wait())
    begun.wait()
    waiting = store.write(insert("cancelled"))
    kept = store.write(insert("kept"))
    assert waiting.cancel()
    gate.set()
    kept.result()
    assert store.read(texts) == ["kept"]


def test_a_closed_store_says_so_and_closes_again(opened):
    store = opened()
    pending = [store.write(insert(str(n))) for n in range(100)]
    store.close()
    store.close()
    assert all(future.result() for future in pending)
    with pytest.raises(StoreUnusable, match="closed"):
        store.write(insert("late"))
    with pytest.raises(StoreUnusable, match="closed"):
        store.read(texts)


def test_maintenance_runs_outside_of_transactions(opened):
    store = opened()
    store.write(insert("kept")).result()
    store.maintain(lambda db: db.execute("VACUUM").fetchall()).result()
    assert store.checkpoint().result() is True
    assert (store.files.folder / "edgeagent.db-wal").stat().st_size == 0
    assert store.read(texts) == ["kept"]


def test_a_second_process_may_use_the_store_and_a_second_key_may_not(opened):
    first = opened()
    second = opened()
    second.write(insert("from the second")).result()
    assert first.read(texts) == ["from the second"]
    first.close()
    second.close()
    with pytest.raises(KeyUnusable, match="does not open"):
        opened(Secret(b"x" * 32, "another test"))


def test_files_are_for_their_owner_only(opened):
    store = opened()
    store.write(insert("x")).result()
    for path in store.files.folder.rglob("*"):
        if path.name not in ("seal.json", "ballast"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_no_canary_is_in_the_raw_bytes_of_the_state_directory(opened):
    store = opened()
    canaries = [f"canary-{n}-{'geheim' * 20}" for n in range(200)]
    for text in canaries:
        store.write(insert(text)).result()
    store.read(lambda db: db.execute("SELECT text FROM notes ORDER BY text DESC").fetchall())
    store.backups.take()
    scanned = [path for path in store.files.folder.parent.rglob("*") if path.is_file()]
    assert {"edgeagent.db", "edgeagent.db-wal", "edgeagent.db-shm"} <= {p.name for p in scanned}
    for path in scanned:
        assert not re.search(rb"canary-|geheim|CREATE TABLE", path.read_bytes()), path


def test_without_encryption_the_scan_would_have_found_it(opened):
    store = opened(None)
    store.write(insert("canary")).result()
    assert any(b"canary" in path.read_bytes() for path in store.files.folder.glob("edgeagent.db*"))


def test_a_store_in_use_is_known_whatever_is_done_to_the_files_in_its_folder(opened, folder):
    store = opened()
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("edgeagent.db"):
            path.unlink()
    beside = StoreLock(folder)
    assert not beside.take()
    beside.close()
    store.close()
    alone = StoreLock(folder)
    assert alone.take()
    alone.close()
