"""`data restore`, killed before each rename, unlink and fsync that it makes, and what is served then."""

from __future__ import annotations

import os
import shutil

import pytest

from edgeagent.cli.data import data
from edgeagent.settings import resolve
from edgeagent.store import audit, client_deletion, conversations, erasure
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.database import open_store
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import ALL_SCOPES

STEPS = ("rename", "replace", "unlink", "fsync")
KILLED = 9


def store_of(state):
    return open_store(resolve(flags={"state_dir": state}).settings)


def talk(store, owner):
    return store.write(lambda db: conversations.create(db, owner, metadata={}, now_ms=1)).result()[
        "id"
    ]


@pytest.fixture
def history(tmp_path):
    """A state directory with a backup, and what has ended since: a key, an owner's data, a row."""
    state = tmp_path / "state"
    with store_of(state) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        admin, tablet = (
            keyring.create(KeySpec(name=name, scopes=ALL_SCOPES), "test").result()
            for name in ("admin", "tablet")
        )
        talk(store, "erased")
        row = talk(store, "deleted")
        store.backups.take()
        keyring.revoke(tablet.key.id, "test").result()
        erasure.erase(
            store, audit.key_of(store.secret), ErasureRequest(Selector(owner="erased"), "test"),
            ErasureScope(state_dir=state),
        )  # fmt: skip
        assert client_deletion.delete(store, DeletionTarget("conversation", row, "deleted"))
        talk(store, "later")
        keyring.close()
    return state, admin.secret, tablet.secret


def restore_killed_at(state, n_steps):
    """Restore in a process that ends without a word before its step `n_steps`. Gives how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        left = iter(range(n_steps))
        for name in STEPS:
            setattr(os, name, _counted(getattr(os, name), left))
        data.main(["restore", "--yes", "--state-dir", str(state)], standalone_mode=False)
        os._exit(0)
    except BaseException as exc:
        os.write(2, f"{exc!r}\n".encode())
        os._exit(1)


def _counted(real, left):
    def step(*args, **named):
        if next(left, None) is None:
            os._exit(KILLED)
        return real(*args, **named)

    return step


def test_a_kill_at_any_step_leaves_the_old_or_the_new_state_and_revives_nothing(history, tmp_path):
    whole, admin, tablet = history
    ends, n_steps = [], 0
    while not ends or ends[-1][0] == KILLED:
        state = tmp_path / "state"  # its path is part of what is in it
        if n_steps:
            shutil.rmtree(state)
            shutil.copytree(tmp_path / "whole", state)
        else:
            shutil.copytree(whole, tmp_path / "whole")
        code = restore_killed_at(state, n_steps)
        assert code in (0, KILLED), (n_steps, code)
        with store_of(state) as store:
            keyring = Keyring(store, store.files.database, lambda store=store: store)
            entered = [
                keyring.caller(secret, is_exposed=False) is not None
                for secret in (None, admin, tablet)
            ]
            owners = store.read(
                lambda db: [
                    row[0] for row in db.execute("select owner from conversation").fetchall()
                ]
            )
            keyring.close()
        assert entered == [False, True, False], n_steps
        assert owners in ([], ["later"]), (n_steps, owners)
        ends.append((code, bool(owners)))
        n_steps += 1
    olds = [is_old for _, is_old in ends]
    assert olds == sorted(olds, reverse=True) and olds[0] and not olds[-1], olds
    assert len(ends) > 10, "steps were found"
