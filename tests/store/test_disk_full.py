"""A disk without room: writes are refused with a type, reads go on, and it heals without a restart."""

from __future__ import annotations

import os
import resource
import subprocess
import time

import pytest

from edgeagent.api.errors import status_of
from edgeagent.errors import StorageFull
from edgeagent.store.database import Database, Options
from tests.store.conftest import SCHEMA, insert, texts

BIG = "x" * 20_000


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
    with Database(small_disk / "store", secret, Options(reserve_bytes=0), SCHEMA) as store:
        n_acknowledged = fill(store)
        assert len(store.read(texts)) == n_acknowledged > 10
        assert isinstance(store.refusal, StorageFull)
    with Database(small_disk / "store", secret, Options(reserve_bytes=0), SCHEMA) as store:
        assert store.notices == []  # it starts on a full disk, too
        assert len(store.read(texts)) == n_acknowledged
        fill(store)
        n_acknowledged = len(store.read(texts))
        ballast.unlink()
        store.write(insert(f"again {BIG}")).result()
        assert store.refusal is None
        assert len(store.read(texts)) == n_acknowledged + 1
    with Database(small_disk / "store", secret, Options(reserve_bytes=0), SCHEMA) as store:
        assert store.notices == []
        assert store.read(texts)[-1] == f"again {BIG}"


def test_the_reserve_is_for_essential_writes(small_disk, secret):
    with Database(small_disk / "store", secret, Options(reserve_bytes=1 << 20), SCHEMA) as store:
        n_acknowledged = fill(store)
        assert os.statvfs(small_disk).f_bavail * 4096 > 1 << 19
        with pytest.raises(StorageFull, match="1 MiB are kept in reserve"):
            store.write(insert("ordinary")).result()
        store.write(
            lambda db: db.execute("DELETE FROM notes WHERE id <= 5"), essential=True
        ).result()
        assert len(store.read(texts)) == n_acknowledged - 5


def test_a_backup_without_room_fails_and_leaves_nothing(small_disk, secret):
    with Database(small_disk / "store", secret, Options(reserve_bytes=0), SCHEMA) as store:
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
    options = Options(reserve_bytes=0)
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
