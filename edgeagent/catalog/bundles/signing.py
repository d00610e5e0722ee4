"""Ed25519 key files, and signing with them.

    <out>/NAME.key     private, PEM (PKCS #8), readable by its owner only; stays where bundles are made
    <out>/NAME.pub     public, in minisign's format (bundles/minisign.py)

A device trusts the public keys in its trust folder, and for one command the one given with --key. The key
id is short, for people: it identifies a key, while the signature proves it. The id is derived from the
key, so nobody can give another key the same id; minisign shows the same digits. Earlier releases wrote
public keys as one line, which is still read:

    edgeagent-ed25519 <key id> <64 hexadecimal digits>
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgeagent.catalog.bundles import minisign
from edgeagent.durable import open_regular
from edgeagent.errors import KeyUnusable

SIGNATURE_BYTES = 64
TRUSTED_KEYS = "trusted_keys"
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EARLIER_PUBLIC = re.compile(r"edgeagent-ed25519 ([0-9a-f]{16}) ([0-9a-f]{64})\n?")
_PEM = b"-----BEGIN "
_MAX_KEY_FILE_BYTES = 4096
_MAX_TRUSTED = 64


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half, which verifies. `raw` is the 32 bytes of RFC 8032."""

    raw: bytes

    @property
    def id(self) -> str:
        """16 hexadecimal digits that identify the key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def number(self) -> bytes:
        """The 8 bytes that identify the key in minisign's files: the id, lowest byte first."""
        return bytes.fromhex(self.id)[::-1]

    @property
    def text(self) -> str:
        """The content of the key's file."""
        comment = f"edgeagent bundle public key {self.id.upper()}"
        return minisign.public_key_text(self.number, self.raw, comment)

    def is_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` was made with the private half of this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The private half, which signs. Lives as long as one command."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, SIGNATURE_BYTES long, deterministic."""
        return self._private.sign(message)

    def minisig(self, file_digest: bytes, trusted_comment: str) -> str:
        """The content of a signature file for minisign; see `minisign.signature_text`."""
        return minisign.signature_text(
            self.sign, self.public.number, file_digest,
            comment=f"signature from edgeagent bundle key {self.public.id.upper()}",
            trusted=trusted_comment,
        )  # fmt: skip


def make_key_pair(folder: Path, name: str) -> tuple[Path, Path, PublicKey]:
    """Create a key pair in `folder`: (private file, public file, public key).

    Raises: KeyUnusable if either file exists (a key is never overwritten) or cannot be written.
    """
    if not KEY_NAME.fullmatch(name):
        raise KeyUnusable(
            f"{name[:80]!r} is not a key name: letters, digits, '.', '_' and '-', up to 64"
        )
    private = Ed25519PrivateKey.generate()
    public = PublicKey(private.public_key().public_bytes_raw())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_path, public_path = folder / f"{name}.key", folder / f"{name}.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if public_path.exists():
            raise FileExistsError(public_path)
        write_new(key_path, pem, 0o600)
        write_new(public_path, public.text.encode(), 0o644)
    except FileExistsError as error:
        raise KeyUnusable(
            f"There is already a key {name!r} in {folder}, and keys are never overwritten, since bundles may"
            " be signed with them: give another --name or --out"
        ) from error
    except OSError as error:
        raise KeyUnusable(
            f"The key cannot be written to {folder} ({error}): give a folder of your own with --out"
        ) from error
    return key_path, public_path, public


def load_signing_key(path: Path) -> SigningKey:
    """The private key in a file. Raises: KeyUnusable, also if others may read the file."""
    data = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise KeyUnusable(
            f"Signing key {path} has mode {mode:04o}, so others may read it; the most is 0600:"
            f" 'chmod 600 {path}', and make a new key if somebody has read it"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(
            f"{path} is not a private key without a password ({error}): give the .key file that"
            " 'edgeagent bundle keys signing' made"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is a {type(key).__name__}, but must be Ed25519: make one with"
                          " 'edgeagent bundle keys signing'")  # fmt: skip
    return SigningKey(key)


def load_public_key(path: Path) -> PublicKey:
    """The public key in a file. Raises: KeyUnusable if it is not one, or has the id of another key."""
    text = _read(path).decode("utf-8", "replace")
    try:
        key_id, raw = _parse_public_key(text)
    except ValueError as error:
        raise KeyUnusable(
            f"{path} is not a public key ({error}): give the .pub file that"
            " 'edgeagent bundle keys signing' made"
        ) from error
    key = PublicKey(raw)
    if key.id != key_id:
        raise KeyUnusable(
            f"{path} has key {key.id} but says {key_id}: it was damaged or edited, or was made by minisign,"
            " whose keys cannot sign bundles; copy the .pub file of 'edgeagent bundle keys signing' again"
        )
    return key


def load_either_key(path: Path) -> PublicKey:
    """The public key from a public or private key file of any release. Raises: KeyUnusable."""
    if _read(path).startswith(_PEM):
        return load_signing_key(path).public
    return load_public_key(path)


def _parse_public_key(text: str) -> tuple[str, bytes]:
    """The stated id and the key. Raises: ValueError."""
    earlier = _EARLIER_PUBLIC.fullmatch(text)
    if earlier is not None:
        return earlier[1], bytes.fromhex(earlier[2])
    number, raw = minisign.parse_public_key(text)
    return number[::-1].hex(), raw


class TrustList:
    """The public keys from which bundles are accepted. Not changed after creation."""

    def __init__(self, keys: Iterable[PublicKey], where: str) -> None:
        self.keys = {key.id: key for key in keys}
        self.where = where

    def key(self, key_id: str) -> PublicKey:
        """The trusted key with that id. Raises: KeyUnusable saying how to trust one."""
        if key_id not in self.keys:
            have = ", ".join(sorted(self.keys)) or "none"
            raise KeyUnusable(
                f"Key {key_id} is not trusted here, {self.where} has {have}: if its owner"
                " confirms that id, give the .pub file with --key or 'edgeagent bundle keys trust FILE'"
            )
        return self.keys[key_id]


def load_trust(folder: Path, key_file: Path | None = None) -> TrustList:
    """The keys of `folder` (*.pub; it may be missing), or only that of `key_file` if it is given.

    Raises: KeyUnusable for a file that is not a public key, or for more than 64 of them.
    """
    if key_file is not None:
        return TrustList([load_public_key(key_file)], str(key_file))
    paths = sorted(folder.glob("*.pub"))
    if len(paths) > _MAX_TRUSTED:
        raise KeyUnusable(f"{folder} has {len(paths)} keys, the limit is {_MAX_TRUSTED}: remove"
                          " those no longer in use")  # fmt: skip
    return TrustList((load_public_key(path) for path in paths), str(folder))


def trust(path: Path, folder: Path) -> PublicKey:
    """Add the public key in `path` to the trust folder, if it is not there yet. Raises: KeyUnusable."""
    key = load_public_key(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_new(folder / f"{key.id}.pub", key.text.encode(), 0o644)
    except FileExistsError:
        if load_public_key(folder / f"{key.id}.pub") != key:
            raise KeyUnusable(f"{folder / key.id}.pub has another key: remove it") from None
    except OSError as error:
        raise KeyUnusable(
            f"{folder} cannot be written ({error}): run as the user that owns it"
        ) from error
    return key


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file, with `mode` from its first byte. Raises: OSError, also if it exists."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    try:
        with open_regular(path, _MAX_KEY_FILE_BYTES) as file:
            return file.read()
    except OSError as error:
        raise KeyUnusable(
            f"Key file {path} cannot be read ({error}): check the path and its permissions"
        ) from error
