"""What is remembered of keys between requests is never older than the last commit of anybody."""

from __future__ import annotations

import pytest

from edgeagent.store import erasure_epochs, keys
from edgeagent.store import key_cache as memories
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import ALL_SCOPES, LOCAL

SPEC = KeySpec(name="ward", scopes=ALL_SCOPES)


@pytest.fixture
def pair(opened):
    """The keyrings of a daemon and of the command line beside it."""
    stores = opened(), opened()
    keyrings = [
        Keyring(store, store.files.database, lambda store=store: store)  # type: ignore[misc]
        for store in stores
    ]
    yield keyrings
    for keyring in keyrings:
        keyring.close()


def enters(keyring, secret=None):
    found = keyring.caller(secret, is_exposed=False)
    return found and found.key_id


def test_what_another_process_commits_counts_for_the_next_request(pair):
    daemon, shell = pair
    assert enters(daemon) == LOCAL.key_id
    first = shell.create(SPEC, "test").result()
    assert enters(daemon) is None and enters(daemon, first.secret) == first.key.id
    second = shell.rotate(first.key.id, "test").result()
    assert enters(daemon, first.secret) is None
    assert enters(daemon, second.secret) == second.key.id
    shell.revoke(second.key.id, "test").result()
    assert enters(daemon, second.secret) is None
    shell.forget(first.key.id, "test").result()
    shell.forget(second.key.id, "test").result()
    assert enters(daemon) == LOCAL.key_id


def test_an_erasure_of_another_process_is_seen_by_the_next_request(pair):
    daemon, shell = pair
    journal = shell._store.journal
    for n in (0, 1, 2):
        enters(daemon)
        assert erasure_epochs.SEEN.get() == n
        shell._store.write(
            lambda db: erasure_epochs.advance(db, journal.pseudonym, Selector(owner="ann"))
        ).result()


def test_while_nothing_is_committed_a_key_is_looked_up_once_and_a_guess_each_time(
    pair, monkeypatch
):
    daemon, _ = pair
    made = daemon.create(SPEC, "test").result()
    asked = []
    find = keys.find
    monkeypatch.setattr(keys, "find", lambda *args: asked.append(args[1]) or find(*args))
    guess = keys.new_secret()
    for _ in range(3):
        assert enters(daemon, made.secret) == made.key.id
        assert enters(daemon, guess) is None
    assert asked.count(made.secret) == 1 and asked.count(guess) == 3


def test_another_connection_begins_anew(opened):
    """Versions of two connections may be alike and mean different states."""
    store = opened()
    memory = memories.KeyCache()
    store.read(memory.look)
    store.write(lambda db: keys.create(db, SPEC, 1)).result()
    assert memory.is_any_made is False
    other = opened()
    other.read(memory.look)
    assert memory.is_any_made is True


def test_no_more_keys_are_remembered_than_the_bound(pair, monkeypatch):
    monkeypatch.setattr(memories, "MOST_KEYS", 2)
    daemon, _ = pair
    made = [daemon.create(SPEC, "test").result() for _ in range(4)]
    assert [enters(daemon, one.secret) for one in made] == [one.key.id for one in made]
    assert len(daemon._lookup._cache._keys) <= 2
