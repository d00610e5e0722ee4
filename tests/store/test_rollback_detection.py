"""Who may enter when files of the state directory are lost, replaced or rolled back.

The insider of these tests can write the whole state directory and has no key of the store.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgeagent.errors import EdgeAgentError, StoreLocked
from edgeagent.store import conversations, erasure, recovery
from edgeagent.store import journal as journals
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import ALL_SCOPES, LOCAL

SPEC = KeySpec(name="ward", scopes=ALL_SCOPES)
CLIENT = KeySpec(name="tablet", scopes=frozenset({"chat"}), owner="ann")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def store_of(state, secret):
    @contextmanager
    def store_of(key=secret):
        options = StoreOptions(reserve_bytes=0, anchor=state / "audit.anchor")
        with Database(state / "store", key, options) as store:
            keyring = Keyring(store, store.files.database, lambda: store)
            try:
                yield store, keyring
            finally:
                keyring.close()

    return store_of


def enters(keyring, secret=None):
    """ "locked", None for nobody, or the key by which somebody enters."""
    try:
        caller = keyring.caller(secret, is_exposed=False)
    except StoreLocked:
        return "locked"
    return caller and caller.key_id


def noise(path):
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 4096):
        data[at + 100 : at + 164] = os.urandom(64)
    path.write_bytes(data)


def talk(store, owner, subject=None):
    def add(db):
        metadata = {"subject": subject} if subject else {}
        conversations.create(db, owner, metadata=metadata, now_ms=1)

    store.write(add).result()


def names(store):
    rows = store.read(lambda db: db.execute("select owner from conversation order by 1").fetchall())
    return [row[0] for row in rows]


def plain_sqlite(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table key (id)")
        db.commit()


# What may lie in the place of a file: each is made at a path where nothing is.
ODD = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}
LOST = {
    "noise": None,
    "a backup from before the first key": None,
    "missing": lambda path: None,
    "empty": Path.touch,
    "text": lambda path: path.write_text("no database\n"),
    "a plain SQLite file": plain_sqlite,
} | ODD


@pytest.mark.parametrize("how", LOST)
def test_a_database_without_its_keys_is_locked_until_it_is_said_otherwise(store_of, state, how):
    with store_of() as (store, keyring):
        assert enters(keyring) == LOCAL.key_id, "no key yet"
        if how.startswith("a backup"):
            store.backups.take()
        keyring.create(SPEC, "test").result()
        assert enters(keyring) is None
        database = store.files.database
    if (put := LOST[how]) is not None:
        database.unlink()
        put(database)
    else:
        noise(database)
    for _ in range(2):  # the second start has nothing to restore
        with store_of() as (_, keyring):
            assert enters(keyring) == enters(keyring, "ea_" + "x" * 43) == "locked"
            with pytest.raises(StoreLocked, match="reset-access"):
                keyring.create(SPEC, "local").result()
    with store_of() as (store, keyring):
        made = keyring.reset_access("cli:test", "new", keep_keys=False).result()
        assert enters(keyring) is None and enters(keyring, made.secret) == made.key.id
        assert keyring.reset_access("cli:test", "x", keep_keys=False).result() is None
        actions = store.read(lambda db: db.execute("select action from audit").fetchall())
        assert ("access.reset",) in actions
    with store_of() as (_, keyring):
        assert enters(keyring, made.secret) == made.key.id


@pytest.mark.parametrize("name", ["edgeagent.db-wal", "restoring.db"])
@pytest.mark.parametrize("how", ODD)
def test_what_is_no_file_in_the_place_of_another_is_set_aside(store_of, state, name, how):
    with store_of() as (_, keyring):
        keyring.create(SPEC, "test").result()
    path = state / "store" / name
    path.unlink(missing_ok=True)
    ODD[how](path)
    with store_of() as (store, keyring):
        assert enters(keyring) is None, "the keys are still asked for"
        (notice,) = store.notices
        assert name in notice.message
        assert [os.path.lexists(aside / name) for aside in store.files.quarantine.iterdir()] == [
            True
        ]
    with store_of() as (store, _):
        assert store.notices == []


@pytest.mark.parametrize("name", ["store/seal.json", "store/journal", "audit.anchor"])
@pytest.mark.parametrize("how", sorted(ODD.keys() - {"a link to nowhere"}))
def test_what_is_no_file_is_neither_waited_for_nor_read_without_an_end(store_of, state, name, how):
    with store_of() as (_, keyring):
        keyring.create(SPEC, "test").result()
    (state / name).unlink()
    ODD[how](state / name)
    try:
        with store_of() as (_, keyring):
            assert enters(keyring) == "locked"
    except EdgeAgentError as refused:
        assert "\n" not in refused.message


def test_a_running_daemon_is_unlocked_by_the_command_line_beside_it(store_of, state, secret):
    with store_of() as (_, keyring):
        keyring.create(SPEC, "test").result()
    (state / "store" / "edgeagent.db").unlink()
    with store_of() as (_store, daemon):
        assert enters(daemon) == "locked"
        with store_of() as (_, beside):
            made = beside.reset_access("cli:test", "new", keep_keys=False).result()
        assert enters(daemon, made.secret) == made.key.id, "the journal has changed"


def test_a_lost_database_without_keys_stays_open(store_of, state):
    with store_of() as (store, keyring):
        talk(store, "local")
    noise(state / "store" / "edgeagent.db")
    with store_of() as (store, keyring):
        assert [notice.code for notice in store.notices] == ["store_lost"]
        assert enters(keyring) == LOCAL.key_id


def test_a_restored_backup_revives_neither_keys_nor_erased_rows(store_of, state):
    with store_of() as (store, keyring):
        admin, tablet, other = (
            keyring.create(spec, "test").result() for spec in (SPEC, CLIENT, CLIENT)
        )
        for owner in ("ann", "bob"):
            talk(store, owner)
        store.backups.take()
        keyring.revoke(tablet.key.id, "test").result()
        replaced = keyring.rotate(other.key.id, "test").result()
        key = store.secret.subkey("audit")
        done = erasure.erase(
            store, key, ErasureRequest(Selector(owner="ann"), "test"), ErasureScope(state_dir=state)
        )
        assert done.is_gone
    noise(state / "store" / "edgeagent.db")
    with store_of() as (store, keyring):
        codes = [notice.code for notice in store.notices]
        assert codes == ["store_restored", "store_replayed"]
        assert "2 keys ended, 1 erasures (1 rows)" in store.notices[1].message
        assert enters(keyring, tablet.secret) is enters(keyring, other.secret) is None
        assert enters(keyring, replaced.secret) is None, "made after the backup, as all is lost"
        assert enters(keyring, admin.secret) == admin.key.id
        assert names(store) == ["bob"]
        talk(store, "ann")
        rows = store.read(lambda db: db.execute("select action, object from audit").fetchall())
        assert ("replay.revoke", f"key:{tablet.key.id}") in rows
        assert any(action == "replay.erase" for action, _ in rows)
    with store_of() as (store, keyring):
        assert store.notices == [] and names(store) == ["ann", "bob"], "nothing is replayed twice"


def test_what_was_stored_after_an_erasure_stays_in_a_restored_backup(store_of, state):
    with store_of() as (store, _keyring):
        talk(store, "ann")
        erasure.erase(
            store, store.secret.subkey("audit"), ErasureRequest(Selector(owner="ann"), "test"),
            ErasureScope(state_dir=state),
        )  # fmt: skip
        talk(store, "ann")
        store.backups.take()
    noise(state / "store" / "edgeagent.db")
    with store_of() as (store, _):
        assert names(store) == ["ann"]


class Stop(BaseException):
    """The process ends here."""


def test_an_erasure_that_was_cut_short_is_finished_at_the_next_start(store_of, state, monkeypatch):
    with store_of() as (store, _):
        talk(store, "ann", subject="p1")
        talk(store, "bob")
        with monkeypatch.context() as patch:

            def stop(*_args, **_named):
                raise Stop

            patch.setattr(erasure, "_erase_batch", stop)
            with pytest.raises(Stop):
                erasure.erase(
                    store, store.secret.subkey("audit"),
                    ErasureRequest(Selector(owner="ann", subject="p1"), "test"),
                    ErasureScope(state_dir=state),
                )  # fmt: skip
        assert names(store) == ["ann", "bob"]
    with store_of() as (store, _):
        assert [notice.code for notice in store.notices] == ["store_replayed"]
        assert names(store) == ["bob"]


def test_an_erasure_that_failed_is_not_taken_up_on_data_that_came_later(
    store_of, state, monkeypatch
):
    with store_of() as (store, _):
        talk(store, "ann")
        with monkeypatch.context() as patch:
            patch.setattr(erasure, "_erase_batch", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                erasure.erase(
                    store, store.secret.subkey("audit"), ErasureRequest(Selector(owner="ann"), "test"),
                    ErasureScope(state_dir=state),
                )  # fmt: skip
    with store_of() as (store, _):
        assert names(store) == ["ann"] and store.notices == []


def test_a_kill_at_any_step_of_the_first_key_neither_opens_nor_locks_for_ever(
    store_of, monkeypatch
):
    """After each step that is on the disk, the next start asks for keys, or is as before the first."""
    for n_steps in range(4):
        with store_of() as (store, keyring), monkeypatch.context() as patch:
            left = iter(range(n_steps))
            for owner, name in ((store, "write"), (store.journal, "append")):
                real = getattr(owner, name)

                def stepping(*args, real=real, left=left, **named):
                    if next(left, None) is None:
                        raise Stop
                    return real(*args, **named)

                patch.setattr(owner, name, stepping)
            try:
                made = keyring.create(SPEC, "test").result()
            except Stop:
                made = None
        with store_of() as (store, keyring):
            if made is None and n_steps == 0:
                assert enters(keyring) == LOCAL.key_id
                continue
            assert enters(keyring) is None and store.journal.read().is_keyed, n_steps
            another = keyring.create(SPEC, "cli:test").result()  # the device can go on
            assert enters(keyring, another.secret) == another.key.id


def test_a_compacted_journal_still_ends_keys_and_locks_what_it_cannot_bring_up(
    store_of, state, monkeypatch
):
    monkeypatch.setattr(journals, "MOST_ENTRIES", 2)
    elsewhere = state.with_name("elsewhere.db")
    with store_of() as (store, keyring):
        admin = keyring.create(SPEC, "test").result()
        first = store.backups.take()
        shutil.copy(first.path, elsewhere)
        gone = [keyring.create(CLIENT, "test").result() for _ in range(3)]
        for made in gone:
            keyring.revoke(made.key.id, "test").result()
        store.compact_journal()
        assert len(store.journal.read().entries) == 3, "the backup lacks them"
        first.path.unlink()
        store.backups.take()
        assert store.compact_journal() and len(store.journal.read().entries) == 0
        backups, files = store.backups, store.files
    with store_of() as (_, keyring):
        assert enters(keyring, admin.secret) == admin.key.id
        assert all(enters(keyring, made.secret) is None for made in gone)
    recovery.restore(files, backups, elsewhere)
    with store_of() as (_, keyring):
        assert enters(keyring, admin.secret) == "locked", "erasures in between are not known"


def test_forgetting_the_last_key_opens_the_daemon_again_on_purpose(store_of):
    with store_of() as (_, keyring):
        made = keyring.create(SPEC, "test").result()
        keyring.revoke(made.key.id, "test").result()
        assert enters(keyring) is None, "a revoked key still means that keys are needed"
        keyring.forget(made.key.id, "test").result()
        assert enters(keyring) == LOCAL.key_id
    with store_of() as (_, keyring):
        assert enters(keyring) == LOCAL.key_id


@pytest.mark.parametrize("is_kept", [False, True])
def test_after_a_reset_no_key_of_which_nobody_knows_enters_unless_it_is_trusted(
    store_of, state, is_kept
):
    with store_of() as (_, keyring):
        old = keyring.create(SPEC, "test").result()
    (state / "store" / "journal").unlink()
    with store_of() as (_, keyring):
        assert enters(keyring, old.secret) == "locked"
        made = keyring.reset_access("cli:test", "new", keep_keys=is_kept).result()
        assert (made is None) == is_kept
        assert enters(keyring, old.secret) == (old.key.id if is_kept else None)


def test_without_encryption_loss_and_restore_are_noticed_all_the_same(store_of, state):
    with store_of(key=None) as (store, keyring):
        admin = keyring.create(SPEC, "test").result()
        tablet = keyring.create(CLIENT, "test").result()
        store.backups.take()
        keyring.revoke(tablet.key.id, "test").result()
    database = state / "store" / "edgeagent.db"
    database.write_bytes(os.urandom(8192))
    with store_of(key=None) as (_, keyring):
        assert enters(keyring, tablet.secret) is None
        assert enters(keyring, admin.secret) == admin.key.id
    shutil.rmtree(state / "store" / "backups")
    database.unlink()
    with store_of(key=None) as (_, keyring):
        assert enters(keyring) == "locked"


def test_a_state_directory_copied_elsewhere_with_its_key_works(store_of, state, tmp_path, secret):
    with store_of() as (_, keyring):
        made = keyring.create(SPEC, "test").result()
    copy = tmp_path / "elsewhere"
    shutil.copytree(state, copy)
    with Database(copy / "store", secret, StoreOptions(anchor=copy / "audit.anchor")) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        assert enters(keyring, made.secret) == made.key.id
        keyring.close()


def test_a_daemon_that_stores_nothing_asks_for_its_keys_too(store_of, state, secret):
    with store_of() as (_, keyring):
        keyring.create(SPEC, "test").result()
    path, marker = state / "store" / "edgeagent.db", state / "audit.anchor"
    for lost in ("edgeagent.db", "journal", "seal.json"):
        (state / "store" / lost).unlink()
        off = Keyring(
            None, path,
            lambda: Database(state / "store", secret, StoreOptions(reserve_bytes=0, anchor=marker)),
            anchor_path=marker,
        )  # fmt: skip
        assert enters(off) == "locked", lost
        off.close()


# ---- what an insider gets by it

PARTS = ("database", "backups", "journal", "anchor")
HOW = ("deleted", "replaced", "rolled back", "from before the first key")
CASES = [
    pytest.param(
        dict(zip(parts, hows, strict=True)),
        id=" ".join(map(" ".join, zip(parts, hows, strict=False))),
    )
    for n in (1, 2, 3)
    for parts in itertools.combinations(PARTS, n)
    for hows in itertools.product(HOW, repeat=n)
    if n < 3 or len(set(hows)) == 1
]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Copies of one state directory: before the first key, before a revocation and an erasure, after."""
    from edgeagent.store.store_key import Secret

    root = tmp_path_factory.mktemp("history")
    key, state = Secret(os.urandom(32), "the test"), root / "state"

    def keep(name):
        shutil.copytree(state, root / name)

    options = StoreOptions(reserve_bytes=0, anchor=state / "audit.anchor")
    with Database(state / "store", key, options) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        talk(store, "ann")
        store.backups.take()
        keyring._publish()
        store.checkpoint().result()
        keep("from before the first key")
        admin = keyring.create(SPEC, "test").result()
        tablet = keyring.create(CLIENT, "test").result()
        store.backups.take()
        store.checkpoint().result()
        keep("rolled back")
        keyring.revoke(tablet.key.id, "test").result()
        erasure.erase(
            store, key.subkey("audit"), ErasureRequest(Selector(owner="ann"), "test"),
            ErasureScope(state_dir=state),
        )  # fmt: skip
        keyring._publish()
        store.backups.take()
        keyring.close()
    keep("now")
    return root, key, admin, tablet


def path_of(state, part):
    store = state / "store"
    return {
        "database": store / "edgeagent.db", "backups": store / "backups",
        "journal": store / "journal", "anchor": state / "audit.anchor",
    }[part]  # fmt: skip


def tamper(state, root, part, how):
    path = path_of(state, part)
    for each in [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]:
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)
    if how == "deleted":
        return
    if how == "replaced":
        if part != "backups":
            path.write_bytes(os.urandom(8192))
        return
    older = path_of(root / how, part)
    shutil.copytree(older, path) if older.is_dir() else shutil.copy(older, path)


@pytest.mark.parametrize("case", CASES)
def test_no_change_of_files_lets_a_revoked_key_or_nobody_enter(history, tmp_path, case):
    root, key, admin, tablet = history
    state = tmp_path / "state"
    shutil.copytree(root / "now", state)
    for part, how in case.items():
        tamper(state, root, part, how)
    options = StoreOptions(reserve_bytes=0, anchor=state / "audit.anchor")
    with Database(state / "store", key, options) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        found = enters(keyring), enters(keyring, tablet.secret), enters(keyring, admin.secret)
        left = names(store)
        keyring.close()
    if is_one_moment(case):
        return  # all that remember are from the same moment: see below
    assert found[0] in (None, "locked"), "nobody enters without a key"
    assert found[1] in (None, "locked"), "no revoked key enters"
    assert found[0] == "locked" or left == [], "nothing erased is served"


def is_one_moment(case):
    """Whether database, journal and anchor were brought to one earlier state together."""
    hows = {case.get(part) for part in ("database", "journal", "anchor")}
    return hows in ({"rolled back"}, {"from before the first key"})


@pytest.mark.parametrize("how", ["rolled back", "from before the first key"])
def test_all_three_from_one_earlier_moment_are_told_by_an_anchor_elsewhere_only(
    history, tmp_path, how
):
    """What this cannot know is stated in store/rollback_detection.py; an anchor on another disk does know."""
    root, key, _admin, _tablet = history
    for anchor_state in ("now", how):
        state = tmp_path / anchor_state.replace(" ", "-")
        shutil.copytree(root / how, state)
        elsewhere = tmp_path / f"{state.name}.anchor"
        shutil.copy(root / anchor_state / "audit.anchor", elsewhere)
        with Database(state / "store", key, StoreOptions(0.0, 0, anchor=elsewhere)) as store:
            keyring = Keyring(store, store.files.database, lambda: store)
            found = enters(keyring)
            keyring.close()
        assert (found == "locked") == (anchor_state == "now")
