"""Steps and their records: all or nothing, once, never backwards."""

from __future__ import annotations

import pytest

from edgeagent.errors import StorageFailed, StoreUnusable
from edgeagent.store.database import Database
from edgeagent.store.migrations import MIGRATIONS, Migration
from edgeagent.store.sql import scalar
from tests.store.conftest import SCHEMA, insert, texts


def applied(db):
    return [tuple(row) for row in db.execute("SELECT number, name FROM migrations ORDER BY number")]


def failing(db):
    db.execute("CREATE TABLE half (id INTEGER)")
    db.execute("SELECT * FROM nowhere")


def column(db):
    db.execute("ALTER TABLE notes ADD COLUMN mood TEXT")


NEXT = len(SCHEMA) + 1


def test_each_step_is_recorded_and_taken_once(opened):
    for _ in range(2):
        store = opened()
        assert store.read(applied) == [(step.number, step.name) for step in SCHEMA]
        store.close()


def test_a_later_version_takes_only_what_is_new(folder, secret, opened):
    store = opened()
    store.write(insert("old row")).result()
    store.close()
    later = (*SCHEMA, Migration(NEXT, "mood", column))
    with Database(folder, secret, migrations=later) as store:
        assert store.read(texts) == ["old row"]
        assert store.read(applied)[-1] == (NEXT, "mood")
        assert store.read(lambda db: scalar(db, "PRAGMA user_version")) == NEXT


def test_a_step_that_fails_leaves_nothing_of_itself(folder, secret, opened):
    opened().close()
    with pytest.raises(StorageFailed, match="nowhere"):
        Database(folder, secret, migrations=(*SCHEMA, Migration(NEXT, "failing", failing)))
    store = opened()
    found = store.read(lambda db: db.execute("SELECT name FROM sqlite_schema").fetchall())
    assert ("half",) not in found
    assert store.read(applied)[-1] == (len(SCHEMA), "notes")


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(folder, secret, opened):
    later = (*SCHEMA, Migration(NEXT, "mood", column))
    Database(folder, secret, migrations=later).close()
    with pytest.raises(
        StoreUnusable, match=rf"has version {NEXT}, this edgeagent knows {len(SCHEMA)}"
    ):
        opened()
    assert not list((folder / "quarantine").iterdir())
    Database(folder, secret, migrations=later).close()


def test_a_store_that_another_process_has_open_is_not_migrated(folder, secret, opened):
    opened()
    with pytest.raises(StoreUnusable, match="stop that process first"):
        Database(folder, secret, migrations=(*SCHEMA, Migration(NEXT, "mood", column)))


def test_the_published_steps_are_numbered_without_gaps():
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert len({step.name for step in MIGRATIONS}) == len(MIGRATIONS)
