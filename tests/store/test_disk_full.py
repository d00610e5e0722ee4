"""A disk without room: writes are refused with a type, reads go on, and it heals without a restart."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from edgeagent.api.http.errors import status_of
from edgeagent.errors import StorageFull
from edgeagent.store import conversations, erasure
from edgeagent.store.connection import from_os
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.disk_reserve import DiskReserve
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import ALL_SCOPES
from tests.store.conftest import SCHEMA, insert, texts

BIG = "x" * 20_000
SPEC = KeySpec(name="ward", scopes=ALL_SCOPES)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB; skipped where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(store):
    """Write until the store refuses; how many writes were acknowledged."""
    for n in range(10_000):
        try:
            store.write(insert(f"{time.monotonic_ns()} {BIG}")).result()
        except StorageFull as exc:
            assert status_of(exc) == 507
            return n
    raise AssertionError("the disk did not fill up")


def test_a_full_disk_refuses_writes_answers_reads_and_heals(small_disk, secret):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with Database(small_disk / "store", secret, StoreOptions(reserve_bytes=0), SCHEMA) as store:
        n_acknowledged = fill(store)
        assert len(store.read(texts)) == n_acknowledged > 10
        assert isinstance(store.refusal, StorageFull)
    with Database(small_disk / "store", secret, StoreOptions(reserve_bytes=0), SCHEMA) as store:
        assert store.notices == []  # it starts on a full disk, too
        assert len(store.read(texts)) == n_acknowledged
        fill(store)
        n_acknowledged = len(store.read(texts))
        ballast.unlink()
        store.write(insert(f"again {BIG}")).result()
        assert store.refusal is None
        assert len(store.read(texts)) == n_acknowledged + 1
    with Database(small_disk / "store", secret, StoreOptions(reserve_bytes=0), SCHEMA) as store:
        assert store.notices == []
        assert store.read(texts)[-1] == f"again {BIG}"


def test_the_reserve_is_for_essential_writes(small_disk, secret):
    with Database(
        small_disk / "store", secret, StoreOptions(reserve_bytes=1 << 20), SCHEMA
    ) as store:
        n_acknowledged = fill(store)
        assert os.statvfs(small_disk).f_bavail * 4096 > 1 << 19
        with pytest.raises(StorageFull, match="1 MiB are reserved"):
            store.write(insert("ordinary")).result()
        store.write(
            lambda db: db.execute("DELETE FROM notes WHERE id <= 5"), essential=True
        ).result()
        assert len(store.read(texts)) == n_acknowledged - 5


def test_a_backup_without_room_fails_and_leaves_nothing(small_disk, secret):
    with Database(small_disk / "store", secret, StoreOptions(reserve_bytes=0), SCHEMA) as store:
        fill(store)
        with pytest.raises(StorageFull):
            store.backups.take()
        assert list(store.files.backups.iterdir()) == []


def test_a_limit_on_file_sizes_counts_as_a_full_disk(opened):
    store = opened()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        n_acknowledged = fill(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(store.read(texts)) == n_acknowledged
    assert store.write(insert("again")).result()


def test_a_disk_filled_by_others_does_not_keep_the_store_from_opening(small_disk, secret):
    options = StoreOptions(reserve_bytes=0)
    with Database(small_disk / "store", secret, options, SCHEMA) as store:
        store.write(insert("kept")).result()
    with (small_disk / "others").open("wb", buffering=0) as others, pytest.raises(OSError):
        while others.write(bytes(4096)):
            pass
    with Database(small_disk / "store", secret, options, SCHEMA) as store:
        assert store.read(texts) == ["kept"]
        with pytest.raises(StorageFull):
            store.write(insert("x" * (1 << 20))).result()
        (small_disk / "others").unlink()
        store.write(insert("again")).result()


def fill_up(place):
    """Others take every byte that is left."""
    with (place / "others").open("ab", buffering=0) as others, pytest.raises(OSError):
        while others.write(bytes(4096)):
            pass


def test_on_a_disk_filled_by_others_keys_are_ended_and_data_is_erased(small_disk, secret):
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    options = StoreOptions(reserve_bytes=4 << 20, anchor=small_disk / "audit.anchor")
    with Database(small_disk / "store", secret, options, SCHEMA) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        made = [keyring.create(SPEC, "test").result() for _ in range(2)]
        for n in range(40):
            store.write(
                lambda db, n=n: conversations.create(
                    db, "ann", metadata={"text": "x" * 500}, now_ms=n
                )
            ).result()
        fill_up(small_disk)
        with pytest.raises(StorageFull):
            store.write(insert("ordinary")).result()
        keyring.revoke(made[0].key.id, "test").result()
        fill_up(small_disk)
        receipt = erasure.erase(
            store, store.secret.subkey("audit"), ErasureRequest(Selector(owner="ann"), "test"),
            ErasureScope(state_dir=small_disk, leave_out=[small_disk / "others"]),
        )  # fmt: skip
        assert receipt.is_gone and receipt.erased["conversation"] == 40
        fill_up(small_disk)
        keyring.revoke(made[1].key.id, "test").result()
        keyring.note_break_glass(made[1].key.caller(), "GET /").result()
        assert store.journal.read().revoked == [one.key.id for one in made]
        (small_disk / "others").unlink()
        store.write(insert("ordinary again")).result()
        assert store.files.disk_reserve.stat().st_size == store.disk_reserve.n_bytes, "taken again"
        keyring.close()


def test_what_must_be_written_is_tried_again_in_the_room_that_was_kept(opened):
    """The same without a small disk: SQLite's own bound on pages, which the disk reserve lifts."""
    store = opened()
    store.write(insert("kept")).result()

    def bound(db):
        n_pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {n_pages}").fetchall()

    store.maintain(bound).result()
    given = []

    class Lifting(DiskReserve):
        def release(self, n_bytes=0):
            given.append(n_bytes)
            store._db.execute("PRAGMA max_page_count = 1000000").fetchall()
            return len(given) == 1

    store._writer._disk_reserve = Lifting(store.files.disk_reserve)
    with pytest.raises(StorageFull):
        store.write(insert(f"ordinary {BIG}")).result()
    assert not given
    store.write(insert(f"essential {BIG}"), essential=True).result()
    assert given == [0] and store.read(texts) == ["kept", f"essential {BIG}"]


def test_the_ballast_is_given_in_pieces_and_taken_where_there_is_room(tmp_path):
    disk_reserve = DiskReserve(tmp_path / "ballast", reserve_bytes=4 << 20)
    assert disk_reserve.n_bytes == 1 << 20 and not disk_reserve.release()
    disk_reserve.refill(spare_bytes=1 << 60)
    assert not (tmp_path / "ballast").exists(), "room that must stay free is not taken"
    disk_reserve.refill()
    assert [disk_reserve.release(1 << 19) for _ in range(3)] == [True, True, False]
    disk_reserve.refill()
    assert (tmp_path / "ballast").stat().st_size == 1 << 20


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV])
def test_a_disk_that_fails_is_no_fault_of_the_request(number: int, tmp_path: Path):
    assert status_of(from_os(OSError(number, os.strerror(number)), tmp_path / "store")) == 503
