"""API keys as rows of a real, encrypted database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import InvalidParameter, KeyNotFound
from edgeagent.store import audit, keys
from edgeagent.store.database import Database
from edgeagent.store.key_record import Key, KeySpec, from_row, scopes_from
from edgeagent.store.keyring import Keyring
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES, LOCAL, KeyLimits

NOW = 1_800_000_000_000
CHAT = KeySpec(name="ward 7", scopes=frozenset({"chat"}))
HOUR = 3_600_000


@pytest.fixture
def database(folder: Path, secret: Secret) -> Iterator[Database]:
    with Database(folder, secret) as database:
        yield database


@pytest.fixture
def keyring(database: Database) -> Iterator[Keyring]:
    keyring = Keyring(database, database.files.database, lambda: database)
    yield keyring
    keyring.close()


def write(database: Database, fn, *arguments):
    return database.write(lambda db: fn(db, *arguments)).result()


def find(database: Database, secret: str, now_ms: int = NOW) -> Key | None:
    key = database.read(lambda db: keys.find(db, secret))
    return key if key is not None and key.is_live(now_ms) else None


def changed(spec: KeySpec, **fields) -> KeySpec:
    return msgspec.structs.replace(spec, **fields)


def test_a_key_is_found_by_its_secret_as_it_was_made(database: Database):
    spec = KeySpec(
        name="Station 7, Büro",
        scopes=frozenset({"chat", "data"}),
        owner="ward-7",
        limits=KeyLimits(requests_per_minute=3, concurrency=2, tokens_per_minute=100),
        tools=frozenset({"lamp"}),
        expires_ms=NOW + HOUR,
    )
    key, secret = write(database, keys.create, spec, NOW)
    assert re.fullmatch(r"ea_[A-Za-z0-9_-]{43}", secret) and keys.looks_like_one(secret)
    assert re.fullmatch(r"key_[0-9a-f]{24}", key.id) and key.hint == secret[-4:]
    assert find(database, secret) == key
    caller = key.caller()
    assert (caller.owner, caller.scopes, caller.tools) == ("ward-7", spec.scopes, spec.tools)
    assert caller.limits == spec.limits
    assert database.read(keys.all_keys) == [key]


def test_only_the_digest_is_kept(database: Database):
    secret = write(database, keys.create, CHAT, NOW).secret
    dump = database.read(lambda db: repr(db.execute("select * from key").fetchall()))
    assert secret not in dump and secret[3:-4] not in dump


def test_owners_are_apart_unless_they_are_named(database: Database):
    made = [write(database, keys.create, CHAT, NOW) for _ in range(3)]
    shared = [write(database, keys.create, changed(CHAT, owner="both"), NOW) for _ in range(2)]
    assert len({new.key.owner for new in made}) == 3
    assert {new.key.owner for new in shared} == {"both"}
    assert len({new.secret for new in made + shared}) == 5


@pytest.mark.parametrize(("after_ms", "is_found"), [(HOUR - 1, True), (HOUR, False)])
def test_a_key_ends_when_it_expires(database: Database, after_ms, is_found):
    secret = write(database, keys.create, changed(CHAT, expires_ms=NOW + HOUR), NOW).secret
    assert (find(database, secret, NOW + after_ms) is not None) is is_found


def test_a_revoked_key_is_not_found_and_keeps_the_time_of_its_end(database: Database):
    key, secret = write(database, keys.create, CHAT, NOW)
    assert write(database, keys.revoke, key.id, NOW + 5).revoked_ms == NOW + 5
    assert write(database, keys.revoke, key.id, NOW + 9).revoked_ms == NOW + 5
    assert find(database, secret, NOW + 6) is None


def test_rotating_gives_a_new_secret_to_the_same_owner(database: Database):
    spec = changed(
        CHAT, expires_ms=NOW + 10 * HOUR, limits=KeyLimits(concurrency=1), tools=frozenset()
    )
    old, old_secret = write(database, keys.create, spec, NOW)
    new, new_secret = write(database, keys.rotate, old.id, NOW + HOUR)
    assert find(database, old_secret, NOW + HOUR) is None
    assert find(database, new_secret, NOW + HOUR) == new
    assert new.id != old.id
    for name in ("name", "owner", "scopes", "limits", "tools"):
        assert getattr(new, name) == getattr(old, name)
    assert new.expires_ms == NOW + 11 * HOUR, "as long as before, from now on"
    old = database.read(lambda db: keys.get(db, old.id))
    assert old.replaced_by == new.id and old.state(NOW + HOUR) == "revoked"


@pytest.mark.parametrize(
    ("expires_ms", "grace_ms", "ends_ms"),
    [(None, HOUR, HOUR), (2 * HOUR, HOUR, HOUR), (HOUR, 2 * HOUR, HOUR)],
)
def test_grace_lets_the_old_secret_live_and_never_longer_than_before(
    database: Database, expires_ms, grace_ms, ends_ms
):
    spec = changed(CHAT, expires_ms=NOW + expires_ms if expires_ms else None)
    old, secret = write(database, keys.create, spec, NOW)
    write(database, keys.rotate, old.id, NOW, grace_ms)
    assert find(database, secret, NOW + ends_ms - 1) is not None
    assert find(database, secret, NOW + ends_ms) is None


def test_a_dead_key_is_not_rotated_and_a_live_one_not_forgotten(database: Database):
    key = write(database, keys.create, CHAT, NOW).key
    with pytest.raises(InvalidParameter, match="revoke it first"):
        write(database, keys.forget, key.id, NOW)
    write(database, keys.revoke, key.id, NOW)
    with pytest.raises(InvalidParameter, match="revoked"):
        write(database, keys.rotate, key.id, NOW)


@pytest.mark.parametrize("fn", [keys.revoke, keys.rotate, keys.forget])
def test_an_unknown_id_is_named(database: Database, fn):
    with pytest.raises(KeyNotFound, match="key_x"):
        write(database, fn, "key_x", NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "x" * 101), ("name", "a\nb"), ("name", "\x1b[2J"),
        ("owner", ""), ("owner", "a b"), ("owner", "x" * 65), ("owner", "../x"), ("owner", "é"),
        ("tools", frozenset({""})), ("tools", frozenset({"a b"})),
        ("tools", frozenset(map(str, range(101)))), ("expires_ms", NOW), ("expires_ms", 0),
    ],
)  # fmt: skip
def test_what_a_key_cannot_be_is_refused_by_name(database: Database, field, value):
    with pytest.raises(InvalidParameter) as caught:
        write(database, keys.create, changed(CHAT, **{field: value}), NOW)
    assert caught.value.param == field.removesuffix("_ms")


@pytest.mark.parametrize("names", [[], ["root"], ["chat", "Admin"], ["chat "], [""]])
def test_scopes_are_the_known_ones(names):
    with pytest.raises(InvalidParameter, match="chat"):
        scopes_from(names)
    assert scopes_from(ALL_SCOPES) == ALL_SCOPES


@given(st.text(max_size=80))
def test_only_the_shape_of_a_secret_is_looked_up(text):
    assert keys.looks_like_one(text) == bool(re.fullmatch(r"ea_[A-Za-z0-9_\-]{43}", text))


# ---- who calls


def test_without_a_key_the_local_owner_calls_where_nobody_else_can(keyring: Keyring):
    assert keyring.caller(None, is_exposed=False) == LOCAL
    assert keyring.caller("whatever", is_exposed=False) == LOCAL
    assert keyring.caller(None, is_exposed=True) is None


def test_from_the_first_key_on_a_key_is_needed_until_every_record_is_gone(
    keyring: Keyring, database: Database
):
    key, secret = keyring.create(CHAT, "cli:me").result()
    found = keyring.caller(secret, is_exposed=False)
    assert found is not None and found.key_id == key.id
    assert keyring.caller(None, is_exposed=False) is None
    assert keyring.is_any_usable()
    keyring.revoke(key.id, "cli:me").result()
    assert keyring.caller(None, is_exposed=False) is None, "ending the last key opens no door"
    assert not keyring.is_any_usable()
    keyring.forget(key.id, "cli:me").result()
    assert keyring.caller(None, is_exposed=False) == LOCAL


def test_a_sealed_key_is_none_for_daily_work(keyring: Keyring):
    spec = KeySpec(name="envelope", scopes=ALL_SCOPES, is_break_glass=True)
    secret = keyring.create(spec, "cli:me").result().secret
    assert not keyring.is_any_usable()
    caller = keyring.caller(secret, is_exposed=True)
    assert caller is not None and caller.is_break_glass


def test_a_forgotten_key_leaves_the_one_it_was_replaced_by(keyring: Keyring):
    first = keyring.create(CHAT, "cli:me").result().key
    second = keyring.rotate(first.id, "cli:me").result().key
    keyring.revoke(second.id, "cli:me").result()
    keyring.forget(second.id, "cli:me").result()
    assert [key.replaced_by for key in keyring.all()] == [None]


def test_every_act_is_audited_with_the_change(keyring: Keyring, database: Database):
    first = keyring.create(CHAT, "cli:me").result().key
    second = keyring.rotate(first.id, "key_admin").result().key
    keyring.revoke(second.id, "local").result()
    keyring.forget(second.id, "local").result()
    with pytest.raises(KeyNotFound):
        keyring.revoke("key_none", "local").result()
    rows = database.read(lambda db: audit.page(db, 0, 100))
    assert [(row.actor, row.action, row.object) for row in rows] == [
        ("cli:me", "key.create", f"key:{first.id}"),
        ("key_admin", "key.rotate", f"key:{first.id}:{second.id}"),
        ("local", "key.revoke", f"key:{second.id}"),
        ("local", "key.forget", f"key:{second.id}"),
    ]
    assert database.secret is not None
    assert database.read(lambda db: audit.verify(db, database.secret.subkey("audit"))).is_sound


def test_another_process_is_followed_at_once_also_where_nothing_is_stored(
    folder: Path, secret: Secret
):
    path = folder / "edgeagent.db"
    follower = Keyring(None, path, lambda: Database(folder, secret))
    assert follower.caller(None, is_exposed=False) == LOCAL
    assert not path.exists(), "asking makes nothing"
    with Database(folder, secret) as other:
        maker = Keyring(other, path, lambda: other)
        key, first = maker.create(CHAT, "cli:me").result()
        assert follower.caller(None, is_exposed=False) is None
        found = follower.caller(first, is_exposed=False)
        assert found is not None and found.key_id == key.id
        maker.revoke(key.id, "cli:me").result()
        assert follower.caller(first, is_exposed=False) is None
        maker.close()
    follower.close()


def test_a_key_of_a_newer_version_is_read_without_what_is_not_known():
    row = (
        "key_1", "ward", "ann", "abcd", '["chat", "paint"]', '{"concurrency": 2, "joules_per_day": 5}',
        None, 0, NOW, None, None, None,
    )  # fmt: skip
    key = from_row(row)
    assert key.scopes == {"chat"}
    assert key.limits == KeyLimits(concurrency=2)
