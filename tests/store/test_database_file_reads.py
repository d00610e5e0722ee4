"""What is read beside SQLite takes none of its locks away."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from edgeagent.settings import resolve
from edgeagent.store import residue_scan
from edgeagent.store.database import open_store
from edgeagent.store.database_file_reads import open_raw
from edgeagent.store.database_files import beside
from tests.commands import run_apart


@pytest.mark.parametrize("is_linked", [False, True])
def test_another_process_leaves_the_log_of_a_database_that_was_searched(tmp_path, is_linked):
    """Also where the search reaches the files by another path than SQLite does."""
    state_dir = tmp_path / "state"
    searched = tmp_path / "link" if is_linked else state_dir
    with open_store(resolve(flags={"state_dir": state_dir}).settings) as store:
        store.write(lambda db: db.execute("update checkpoint set body = body").rowcount).result()
        log, index = beside(store.files.database)
        inode = log.stat().st_ino
        if is_linked:
            searched.symlink_to(state_dir, target_is_directory=True)
        found = residue_scan.search(
            store.files, store.secret.raw, [b"nobody said this"], lambda _: None, state_dir=searched
        )
        assert found.n_files >= 3 and found.is_clean
        for name in ("a", "b"):
            done = run_apart("keys", "create", "--name", name, "--state-dir", state_dir)
            assert done.returncode == 0, done.stderr
        assert log.stat().st_ino == inode, "the log that this process writes to is still there"
        assert index.exists()
        assert store.read(lambda db: db.execute("select count(*) from key").fetchone()[0]) == 2


def test_a_backup_that_was_searched_is_not_held_open(tmp_path):
    with open_store(resolve(flags={"state_dir": tmp_path}).settings) as store:
        store.files.backups.mkdir(exist_ok=True)
        copy = store.files.backups / "edgeagent-000001.db"
        copy.write_bytes(store.files.database.read_bytes())
        inode = copy.stat().st_ino
        residue_scan.search(
            store.files, store.secret.raw, [b"nobody said this"], lambda _: None, state_dir=tmp_path
        )
        held = set()
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                held.add(fd.stat().st_ino)
    assert inode not in held


def test_it_reads_as_a_file_does(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    with open_raw(path) as file:
        assert file.read(4) == bytes(range(4))
        file.seek(255)
        assert file.read(2) == b"\xff\x00"
        file.seek(0)
        assert file.read() == path.read_bytes()
    with open_raw(path) as file:
        assert file.read(1) == b"\0"
