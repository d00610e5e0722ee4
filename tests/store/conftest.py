"""A store in a folder of its own, with a key that only the test has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.store.connection import connect, set_wal
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.migrations import MIGRATIONS, Migration
from edgeagent.store.store_key import Secret


def notes(db: Any) -> None:
    db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT")


SCHEMA = (*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "notes", notes))


@pytest.fixture
def secret() -> Secret:
    return Secret(os.urandom(32), "the test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store"


@pytest.fixture
def opened(folder: Path, secret: Secret) -> Iterator[Callable[..., Database]]:
    """Open the store of this test, again and again; what is left open is closed at the end."""
    stores: list[Database] = []

    def opened(key: Secret | None = secret, **options: Any) -> Database:
        store = Database(folder, key, StoreOptions(**{"reserve_bytes": 0} | options), SCHEMA)
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


def insert(text: str) -> Callable[[Any], int]:
    return lambda db: db.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid


def texts(db: Any) -> list[str]:
    return [row[0] for row in db.execute("SELECT text FROM notes ORDER BY id")]


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Any]:
    """A connection to a file with the tables of the store, for what needs no threads."""
    db = connect(tmp_path / "rows.db", os.urandom(32), role="writer")
    set_wal(db, "FULL")
    for step in MIGRATIONS[1:]:  # without the properties
        step.apply(db)
    yield db
    db.close()
