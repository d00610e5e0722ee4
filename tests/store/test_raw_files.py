"""What is read beside SQLite takes none of its locks away."""

from __future__ import annotations

from edgeagent.store import residue_scan
from edgeagent.store.database_pages import decrypted
from edgeagent.store.raw_files import open_raw
from tests.commands import run_apart


def test_another_process_leaves_the_log_of_a_database_that_was_searched(tmp_path):
    from edgeagent.settings import resolve
    from edgeagent.store.database import open_store

    with open_store(resolve(flags={"state_dir": tmp_path}).settings) as store:
        store.write(lambda db: db.execute("update checkpoint set body = body").rowcount).result()
        log = store.files.database.with_name(store.files.database.name + "-wal")
        inode = log.stat().st_ino
        index = log.with_name(log.name.replace("-wal", "-shm"))
        assert list(decrypted(store.files.database, store.secret.raw))
        assert list(residue_scan._raw(index, is_index=True))
        for name in ("a", "b"):
            done = run_apart("keys", "create", "--name", name, "--state-dir", tmp_path)
            assert done.returncode == 0, done.stderr
        assert log.stat().st_ino == inode, "the log that this process writes to is still there"
        assert store.read(lambda db: db.execute("select count(*) from key").fetchone()[0]) == 2


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
