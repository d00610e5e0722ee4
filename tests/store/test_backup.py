"""Backups: sound, encrypted, few, and of use."""

from __future__ import annotations

import os
import threading
import time

import pytest

from edgeagent.errors import BackupFailed
from edgeagent.store.backup import Backups
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.recovery import restore
from tests.store.conftest import SCHEMA, insert, texts


def test_a_backup_taken_under_load_verifies_and_opens_without_leftovers(opened):
    store = opened(n_backups=50)
    over = threading.Event()
    sent = []

    def load():
        while not over.is_set():
            store.write(insert(f"canary {len(sent)} {'x' * 200}")).result()
            sent.append(len(sent))

    thread = threading.Thread(target=load)
    thread.start()
    taken = [store.backups.take() for _ in range(10)]
    over.set()
    thread.join()
    sizes = [store.backups.verify(backup.path) for backup in taken]
    assert {found.version for found in sizes} == {len(SCHEMA)}
    assert len({found.store_id for found in sizes}) == 1
    assert sorted(store.files.backups.iterdir()) == [backup.path for backup in taken]
    assert all(b"canary" not in backup.path.read_bytes() for backup in taken)


def test_the_newest_n_are_kept_whatever_the_clock_says(opened, monkeypatch):
    store = opened(n_backups=2)
    strftime = time.strftime
    for year in ("2031", "1970", "2026", "1999"):
        # Loggers tell the time by the same function.
        stamps = {"%Y%m%dT%H%M%SZ": f"{year}0101T000000Z"}
        monkeypatch.setattr(
            "time.strftime", lambda form, *t, s=stamps: s.get(form) or strftime(form, *t)
        )
        store.backups.take()
    assert [(b.number, b.taken[:4]) for b in store.backups.listed()] == [(3, "2026"), (4, "1999")]


def test_the_restore_drill(opened, folder, secret):
    store = opened()
    store.write(insert("in the backup")).result()
    backup = store.backups.take()
    store.write(insert("after it")).result()
    store.close()
    files = StoreFiles(folder)
    notice = restore(files, Backups(files, secret.raw), backup.path)
    assert "kept in" in notice.message
    store = opened()
    assert store.read(texts) == ["in the backup"]
    assert store.notices == []
    [aside] = files.quarantine.iterdir()
    assert (aside / "edgeagent.db").exists()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_a_backup_is_found(opened, place):
    store = opened()
    for n in range(200):
        store.write(insert(f"{n} {'x' * 500}"))
    path = store.backups.take().path
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackupFailed):
        store.backups.verify(path)


def test_a_backup_does_not_open_with_another_key(opened, folder):
    store = opened()
    path = store.backups.take().path
    for key in (os.urandom(32), None):
        with pytest.raises(BackupFailed):
            Backups(StoreFiles(folder), key).verify(path)
    with pytest.raises(BackupFailed, match="is not there"):
        store.backups.verify(path.with_name("edgeagent-000099-20260101T000000Z.db"))


def test_what_an_interrupted_backup_left_is_swept(opened, folder):
    opened().close()
    left = folder / "backups" / ".edgeagent-000009-20260101T000000Z.db.part"
    left.write_bytes(b"half")
    store = opened()
    assert not left.exists() and store.backups.listed() == []


def test_a_copy_of_the_state_directory_does_not_open_without_the_key(opened, folder):
    store = opened()
    store.write(insert("secret")).result()
    path = store.backups.take().path
    for stolen in (store.files.database, path):
        with pytest.raises(BackupFailed):
            Backups(StoreFiles(folder), None).verify(stolen)
