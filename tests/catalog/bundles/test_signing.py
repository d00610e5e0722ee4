"""Signing keys: made once, kept private, and each unusable file told apart."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgeagent.catalog.bundles.signing import (
    SIGNATURE_BYTES,
    TrustList,
    load_public_key,
    load_signing_key,
    load_trust,
    make_key_pair,
    trust,
)
from edgeagent.errors import KeyUnusable


def test_a_pair_signs_and_verifies_and_only_that(tmp_path: Path) -> None:
    private, public, key = make_key_pair(tmp_path / "keys", "mine")
    signature = load_signing_key(private).sign(b"message")
    assert len(signature) == SIGNATURE_BYTES
    read = load_public_key(public)
    assert read == key
    assert read.is_signed(b"message", signature)
    assert not read.is_signed(b"massage", signature)
    assert not read.is_signed(b"message", signature[:-1])
    for place in range(SIGNATURE_BYTES):
        flipped = bytearray(signature)
        flipped[place] ^= 1
        assert not read.is_signed(b"message", bytes(flipped))
    assert not make_key_pair(tmp_path, "other")[2].is_signed(b"message", signature)


def test_the_private_file_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        private, public, _ = make_key_pair(tmp_path, "mine")
    finally:
        os.umask(old)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert len(public.read_text().splitlines()) == 2


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    private, public, _ = make_key_pair(tmp_path, "mine")
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(KeyUnusable, match="never overwritten"):
        make_key_pair(tmp_path, "mine")
    private.unlink()
    with pytest.raises(KeyUnusable, match="never overwritten"):
        make_key_pair(tmp_path, "mine")
    assert not private.exists()
    private.write_bytes(before[0])
    public.unlink()
    with pytest.raises(KeyUnusable, match="never overwritten"):
        make_key_pair(tmp_path, "mine")
    assert private.read_bytes() == before[0]


def test_a_link_in_the_place_of_a_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnusable):
        make_key_pair(tmp_path, "mine")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "../mine", "a/b", ".mine", "a\0b", "x" * 65])
def test_a_key_name_names_one_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyUnusable, match="not a key name"):
        make_key_pair(tmp_path / "keys", name)
    assert not list(tmp_path.iterdir())


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    private, _, _ = make_key_pair(tmp_path, "mine")
    private.chmod(0o640)
    with pytest.raises(KeyUnusable, match=r"mode 0640.*chmod 600"):
        load_signing_key(private)


def test_what_is_no_signing_key_is_refused(tmp_path: Path) -> None:
    _, public, _ = make_key_pair(tmp_path, "mine")
    other = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "bad.key"
    for data, said in (
        (b"", "not a private key"),
        (b"x" * 5000, "5000 bytes, the limit is 4096"),
        (public.read_bytes(), "not a private key"),
        (other, "must be Ed25519"),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(KeyUnusable, match=said):
            load_signing_key(path)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        load_signing_key(tmp_path / "absent.key")


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    private, public, key = make_key_pair(tmp_path, "mine")
    earlier = f"edgeagent-ed25519 {key.id} {key.raw.hex()}\n"
    path = tmp_path / "bad.pub"
    for text, said in (
        ("", "not a public key"),
        (key.text * 2, "not a public key"),
        (key.text.upper(), "not a public key"),
        (earlier * 2, "not a public key"),
        (earlier.upper(), "not a public key"),
        (earlier.replace(key.id, "0" * 16), "damaged or edited"),
        (private.read_text(), "not a public key"),
    ):
        path.write_text(text)
        with pytest.raises(KeyUnusable, match=said):
            load_public_key(path)
    os.mkfifo(tmp_path / "pipe.pub")
    with pytest.raises(KeyUnusable, match="not a regular file"):
        load_public_key(tmp_path / "pipe.pub")
    assert load_public_key(public) == key


def test_trust_is_a_folder_of_keys_or_the_one_that_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "trusted_keys"
    assert load_trust(folder).keys == {}
    _, first_file, first = make_key_pair(tmp_path, "first")
    _, second_file, second = make_key_pair(tmp_path, "second")
    assert trust(first_file, folder) == trust(first_file, folder) == first
    assert set(load_trust(folder).keys) == {first.id}
    assert load_trust(folder).key(first.id) == first
    only = load_trust(folder, second_file)
    assert set(only.keys) == {second.id}
    with pytest.raises(KeyUnusable, match=f"has {second.id}"):
        only.key(first.id)


def test_a_trusted_file_that_is_damaged_is_told_and_not_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "trusted"
    _, public, key = make_key_pair(tmp_path, "mine")
    trust(public, folder)
    (folder / "other.pub").write_text("nonsense")
    with pytest.raises(KeyUnusable, match=r"other\.pub"):
        load_trust(folder)
    assert TrustList([key], "here").key(key.id) == key
