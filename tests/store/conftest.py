"""A real SQLCipher file with the tables of the store, filled as the daemon fills it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3.dbapi2 as sqlcipher

from edgeagent.store.schema import FIRST

KEY = bytes(range(32))


def connect(path: Path, key: bytes | None = KEY) -> Any:
    conn = sqlcipher.connect(str(path), isolation_level=None, check_same_thread=False, timeout=10)
    if key is not None:
        conn.set_key(f"x'{key.hex()}'")
    for pragma in ("journal_mode = wal", "foreign_keys = on", "secure_delete = on"):
        conn.execute(f"pragma {pragma}")
    return conn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / "edgeagent.db"


@pytest.fixture
def conn(path: Path) -> Iterator[Any]:
    conn = connect(path)
    conn.executescript(FIRST)
    yield conn
    conn.close()


@pytest.fixture
def run(conn: Any) -> Callable[[Callable[[Any], Any]], Any]:
    """What `Database.write` does, on this thread."""

    def run(fn: Callable[[Any], Any]) -> Any:
        conn.execute("begin immediate")
        try:
            result = fn(conn)
        except BaseException:
            conn.execute("rollback")
            raise
        conn.execute("commit")
        return result

    return run
