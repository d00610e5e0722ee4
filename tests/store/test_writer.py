"""Group commit: one closure's failure is its own, whatever the others do; nobody ends the transaction."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.errors import StoreBusy
from edgeagent.store import writer
from edgeagent.store.connection import SqliteError
from tests.conftest import n_examples
from tests.store.conftest import insert, texts


class Failed(Exception):
    pass


def failing_after(text):
    def run(db):
        insert(text)(db)
        raise Failed(text)

    return run


def ending(word):
    def run(db):
        insert(f"with {word}")(db)
        db.conn.execute(word)

    return run


def held(store):
    """Keep the writer busy, so that what is sent meanwhile becomes one group."""
    begun, gate = threading.Event(), threading.Event()
    store.write(lambda db: begun.set() or gate.wait())
    begun.wait()
    return gate


def rollback_trigger(db):
    db.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON notes WHEN new.text = 'poison' "
        "BEGIN SELECT RAISE(ROLLBACK, 'poisoned'); END"
    )


KINDS = {
    "good": lambda n: insert(f"good {n}"),
    "raises": lambda n: failing_after(f"raises {n}"),
    "duplicate": lambda n: insert("first"),
    "commit": lambda n: ending("COMMIT"),
    "rollback": lambda n: ending("rollback"),
    "poison": lambda n: insert("poison"),
}


@settings(
    max_examples=n_examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12))
def test_in_any_mixture_each_closure_fails_or_succeeds_alone(kinds, opened):
    store = opened()
    store.write(lambda db: db.execute("DELETE FROM notes")).result()
    store.write(lambda db: db.execute("DROP TRIGGER IF EXISTS refuse")).result()
    store.write(rollback_trigger).result()
    store.write(insert("first")).result()
    gate = held(store)
    futures = [store.write(KINDS[kind](n)) for n, kind in enumerate(kinds)]
    gate.set()
    failed = [future.exception(10) is not None for future in futures]
    assert failed == [kind != "good" for kind in kinds]
    expected = [f"good {n}" for n, kind in enumerate(kinds) if kind == "good"]
    assert store.read(texts) == ["first", *expected]
    store.close()


def test_a_group_shares_one_commit(opened):
    store = opened()
    gate = held(store)
    before = store.counts()["n_commits"]
    futures = [store.write(insert(str(n))) for n in range(100)]
    gate.set()
    assert [future.result() for future in futures] == list(range(1, 101))
    assert store.counts()["n_commits"] - before == 2  # the holder's, and one for the hundred


def test_writes_within_the_window_share_a_commit(opened):
    store = opened(group_window_ms=1000)
    before = store.counts()["n_commits"]
    futures = [store.write(insert(str(n))) for n in range(writer.BATCH)]
    for future in futures:  # a full group goes without waiting for the end of the window
        future.result()
    assert store.counts()["n_commits"] - before <= 2


def test_a_closure_cannot_end_the_transaction_it_shares(opened):
    store = opened()
    for word in ("COMMIT", "ROLLBACK", "END", "BEGIN"):
        with pytest.raises(SqliteError, match="not authorized"):
            store.write(ending(word)).result()
    assert store.read(texts) == []


def test_even_an_exit_in_a_closure_does_not_end_the_writer(opened):
    store = opened()

    def leave(db):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        store.write(leave).result()
    assert store.write(insert("after")).result() == 1


def test_the_inbox_is_bounded(opened, monkeypatch):
    monkeypatch.setattr(writer, "INBOX", 10)
    store = opened()
    gate = held(store)
    futures = [store.write(insert(str(n))) for n in range(10)]
    with pytest.raises(StoreBusy, match="10 writes wait"):
        store.write(insert("too many"))
    gate.set()
    assert all(future.result() for future in futures)


def test_maintenance_keeps_its_place_among_writes(opened):
    store = opened()
    gate = held(store)
    store.write(insert("before"))
    seen = store.maintain(texts)
    store.write(insert("behind"))
    gate.set()
    assert seen.result() == ["before"]


def test_maintenance_that_fails_leaves_no_transaction_open(opened):
    store = opened()

    def begin_and_fail(db):
        db.execute("BEGIN")
        insert("lost")(db)
        raise Failed

    with pytest.raises(Failed):
        store.maintain(begin_and_fail).result()
    store.write(insert("kept")).result()
    assert store.read(texts) == ["kept"]
