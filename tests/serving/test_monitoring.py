"""What the gauges of the daemon are made of."""

from __future__ import annotations

from pathlib import Path

from edgeagent.serving.monitoring import store_bytes
from edgeagent.store.database_files import StoreFiles


def test_every_folder_of_a_store_counts(tmp_path: Path):
    files = StoreFiles(tmp_path)
    for n, folder in enumerate((files.backups, files.prefixes, files.recordings, files.quarantine)):
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"x" * (n + 1))
    found = store_bytes(files)
    assert (found["backups"], found["prefixes"], found["recordings"]) == (1, 2, 3)
    assert found["quarantine"] == 4
    assert sum(found.values()) == 10
