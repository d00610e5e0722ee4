"""The first key of a device that nobody logs in to: made once, whatever ends the process."""

from __future__ import annotations

import stat

import pytest

from edgeagent.errors import StartFailed
from edgeagent.store.bootstrap_key import bootstrap
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES

SECRET = Secret(b"k" * 32, "the test")


@pytest.fixture
def keyring(tmp_path):
    with Database(tmp_path / "store", SECRET, StoreOptions(reserve_bytes=0)) as store:
        keyring = Keyring(store, store.files.database, lambda: store)
        yield keyring
        keyring.close()


def test_the_first_start_writes_a_key_with_every_scope_and_the_second_nothing(keyring, tmp_path):
    path = tmp_path / "first.key"
    assert bootstrap(keyring, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text().strip()
    caller = keyring.caller(secret, is_exposed=True)
    assert caller is not None and caller.scopes == ALL_SCOPES
    assert not bootstrap(keyring, path) and path.read_text().strip() == secret
    path.unlink()  # read and taken away
    assert not bootstrap(keyring, path) and not path.exists()
    assert len(keyring.all()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["store"], "no draft is left"


def test_a_store_with_keys_gets_no_other(keyring, tmp_path):
    keyring.create(KeySpec(name="x", scopes=ALL_SCOPES), "test").result()
    assert not bootstrap(keyring, tmp_path / "first.key")
    assert not (tmp_path / "first.key").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_there_is_not_overwritten(keyring, tmp_path, kind):
    path = tmp_path / "first.key"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="not overwritten"):
        bootstrap(keyring, path)
    assert not (tmp_path / "elsewhere").exists() and keyring.all() == []


def test_a_folder_that_is_not_there_is_said_and_no_key_made(keyring, tmp_path):
    with pytest.raises(StartFailed, match="cannot be written"):
        bootstrap(keyring, tmp_path / "nowhere" / "first.key")
    assert keyring.all() == []


@pytest.mark.parametrize("is_made", [False, True], ids=["before the key", "after the key"])
def test_a_kill_in_between_is_made_good_at_the_next_start(keyring, tmp_path, monkeypatch, is_made):
    path = tmp_path / "first.key"

    class Stop(BaseException):
        pass

    with monkeypatch.context() as patch:
        if is_made:
            patch.setattr("os.link", lambda *a, **k: (_ for _ in ()).throw(Stop()))
        else:
            patch.setattr(keyring, "create", lambda *a: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            bootstrap(keyring, path)
    assert not path.exists()
    assert bootstrap(keyring, path)
    assert keyring.caller(path.read_text().strip(), is_exposed=True) is not None
    assert len(keyring.all()) == 1
