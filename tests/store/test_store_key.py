"""Where the key comes from, and what is refused as a key."""

from __future__ import annotations

import json
import os

import pytest

from edgeagent.errors import KeyUnusable
from edgeagent.settings import resolve
from edgeagent.store import store_key as secrets_of_store
from edgeagent.store.database import open_store
from edgeagent.store.store_key import Secret, obtain
from tests.store.conftest import texts


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(secrets_of_store, "ARGON2", {"time_cost": 1, "memory_kib": 64, "lanes": 1})


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def settings(**values):
        given = {
            "state_dir": tmp_path / "state",
            "store_key_file": tmp_path / "keys" / "store.key",
            "store_reserve_bytes": 0,
        }
        return resolve(flags=given | values).settings

    return settings


def passphrase(tmp_path, words="correct horse battery"):
    path = tmp_path / "passphrase"
    path.write_text(f"{words}\n")
    path.chmod(0o600)
    return path


def test_a_key_file_is_made_once_outside_of_the_state_for_its_owner_only(settings):
    first = obtain(settings())
    path = settings().store.key_file
    assert first.raw == bytes.fromhex(path.read_text().strip())
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert obtain(settings()).raw == first.raw


def test_a_key_file_inside_the_state_directory_is_refused(settings, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "state")
    for path in (tmp_path / "state" / "store.key", tmp_path / "link" / "deep" / "store.key"):
        with pytest.raises(KeyUnusable, match="inside the state directory"):
            obtain(settings(store_key_file=path))
        assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused(settings, mode):
    obtain(settings())
    settings().store.key_file.chmod(mode)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        obtain(settings())


def test_a_lost_key_is_not_replaced_by_a_new_one(settings):
    open_store(settings()).close()
    settings().store.key_file.unlink()
    with pytest.raises(KeyUnusable, match="put the key back"):
        open_store(settings())
    assert not settings().store.key_file.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"ab" * 31, b"zz" * 32, bytes(range(0x80, 0xA1))])
def test_what_is_not_a_key_is_refused(settings, content):
    obtain(settings())
    settings().store.key_file.write_bytes(content)
    with pytest.raises(KeyUnusable, match="a key is 32 raw bytes"):
        obtain(settings())


def test_a_systemd_credential_comes_first(settings, tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "edgeagent.key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    found = obtain(settings())
    assert (found.raw, found.source) == (bytes(range(32)), "credential edgeagent.key")
    assert not settings().store.key_file.exists()


def test_a_passphrase_opens_what_it_sealed_and_no_other_does(settings, tmp_path, cheap):
    chosen = settings(store_passphrase_file=passphrase(tmp_path))
    with open_store(chosen) as store:
        key = store.secret.raw
    with open_store(chosen) as store:
        assert store.secret.raw == key
    passphrase(tmp_path, "correct horse batterie")
    with pytest.raises(KeyUnusable, match="does not open"):
        open_store(chosen)
    passphrase(tmp_path, "short")
    with pytest.raises(KeyUnusable, match="has 5 bytes, the minimum is 12"):
        open_store(chosen)


def test_parameters_out_of_bounds_in_the_seal_are_refused(settings, tmp_path, cheap):
    chosen = settings(store_passphrase_file=passphrase(tmp_path))
    open_store(chosen).close()
    seal = chosen.store_dir / "seal.json"
    content = json.loads(seal.read_text())
    content["kdf"]["memory_kib"] = 1 << 40
    seal.write_text(json.dumps(content))
    with pytest.raises(KeyUnusable, match="out of bounds"):
        open_store(chosen)


def test_a_passphrase_for_a_store_with_a_key_file_is_refused(settings, tmp_path, cheap):
    open_store(settings()).close()
    with pytest.raises(KeyUnusable, match="sealed without a passphrase"):
        open_store(settings(store_passphrase_file=passphrase(tmp_path)))


@pytest.mark.parametrize(("before", "after"), [("on", "off"), ("off", "on")])
def test_the_mode_of_a_store_does_not_change_by_itself(settings, before, after):
    open_store(settings(store_encryption=before)).close()
    with pytest.raises(KeyUnusable, match=f"was created with store.encryption = {before}"):
        open_store(settings(store_encryption=after))
    with open_store(settings(store_encryption=before)) as store:
        assert store.notices == []


def test_a_wrong_key_is_refused_and_nothing_is_set_aside(opened):
    opened().close()
    for _ in range(3):
        with pytest.raises(KeyUnusable, match="does not open store"):
            opened(Secret(os.urandom(32), "elsewhere"))
    store = opened()
    assert (store.notices, store.read(texts)) == ([], [])
    assert not list(store.files.quarantine.iterdir())


def test_a_wrong_key_without_a_seal_is_refused_too(opened, folder):
    opened().close()
    (folder / "seal.json").unlink()
    with pytest.raises(KeyUnusable, match="wrong key cannot be told from damage"):
        opened(Secret(os.urandom(32), "elsewhere"))
    assert not list((folder / "quarantine").iterdir())
    opened().close()
    assert (folder / "seal.json").exists()


def test_subkeys_differ_by_purpose_and_stay_the_same(secret):
    assert secret.subkey("audit") == secret.subkey("audit")
    assert len({secret.raw, secret.subkey("audit"), secret.subkey("check")}) == 3


def test_a_key_is_never_shown(secret):
    assert secret.raw.hex() not in repr(secret) and repr(secret.raw) not in repr(secret)
