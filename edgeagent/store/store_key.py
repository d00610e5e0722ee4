"""The key of the store: 32 bytes that are never stored beside the data.

Sources, in this order: a systemd credential named `edgeagent.key`; the passphrase in
`store.passphrase_file` (Argon2id); a key file outside the state directory, created at the first start.
Beside the data there is only the seal: a keyed check value that distinguishes a wrong key from a damaged
file, and the parameters of Argon2id.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgeagent.durable import open_regular, replace_text, sync_folder
from edgeagent.errors import KeyUnusable
from edgeagent.settings import Settings
from edgeagent.settings.environment import credential
from edgeagent.store.database_files import StoreFiles

KEY_BYTES = 32
CREDENTIAL = "edgeagent.key"
LEAST_PASSPHRASE = 12
_SEAL_BYTES = 1 << 16
# RFC 9106, section 4, the option for memory-constrained devices: 3 passes over 64 MiB; about 0.2 s on a
# laptop, 2 s on a Raspberry Pi 4, once per start.
ARGON2 = {"time_cost": 3, "memory_kib": 64 * 1024, "lanes": 1}
_MOST = {
    "time_cost": 64,
    "memory_kib": 1 << 20,
    "lanes": 16,
}  # anyone may have edited the seal file


@dataclass(frozen=True, repr=False)
class Secret:
    """The raw key and its source. `kdf`: how it was derived from a passphrase."""

    raw: bytes
    source: str
    kdf: Mapping[str, Any] | None = None

    def subkey(self, purpose: str) -> bytes:
        """32 bytes for one purpose ("audit"), which reveal nothing about the key or other subkeys."""
        return HKDF(
            hashes.SHA256(), KEY_BYTES, None, f"edgeagent store: {purpose}".encode()
        ).derive(self.raw)


@dataclass(frozen=True)
class Seal:
    """The information about the key that is stored beside the database."""

    is_encrypted: bool
    source: str | None = None
    salt: str = ""
    check: str = ""
    kdf: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, secret: Secret | None) -> Seal:
        if secret is None:
            return cls(is_encrypted=False)
        salt = secrets.token_hex(16)
        return cls(True, secret.source, salt, _check(secret, salt), secret.kdf)

    @classmethod
    def read(cls, path: Path) -> Seal | None:
        """The seal, or None if there is none. Raises: KeyUnusable."""
        try:
            with open_regular(path, _SEAL_BYTES) as file:
                found = json.load(file)
            return cls(**{name: found.get(name) for name in cls.__annotations__})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as exc:
            raise KeyUnusable(
                f"Seal {path} cannot be read ({exc}); without it a wrong key looks like damage: "
                "restore that file, or remove it if the key is a key file or a credential."
            ) from exc

    def write(self, path: Path) -> None:
        """Raises: OSError."""
        replace_text(path, json.dumps(self.__dict__, indent=1) + "\n")

    def refuse_other_mode(self, is_encrypted: bool, folder: Path) -> None:
        """Raises: KeyUnusable if the store was created with the other store.encryption."""
        if self.is_encrypted != is_encrypted:
            was, now = ("on", "off") if self.is_encrypted else ("off", "on")
            raise KeyUnusable(
                f"Store {folder} was created with store.encryption = {was}, the setting is {now}: "
                "set it back, or move that folder away to start with a new store."
            )

    def refuse_other(self, secret: Secret | None, folder: Path) -> None:
        """Raises: KeyUnusable if the store was sealed with another key or in another mode."""
        self.refuse_other_mode(secret is not None, folder)
        if secret and not hmac.compare_digest(self.check, _check(secret, self.salt)):
            raise KeyUnusable(
                f"The key from {secret.source} does not open store {folder}, which was sealed with a key "
                f"from {self.source}: provide that key, or move the folder away to start with a new store."
            )


def _check(secret: Secret, salt: str) -> str:
    return hmac.new(secret.subkey("check"), salt.encode(), sha256).hexdigest()


def obtain(settings: Settings) -> Secret | None:
    """The key of this store; None if encryption is off. May create a key file.

    Raises: KeyUnusable.
    """
    files = StoreFiles(settings.store_dir)
    seal = Seal.read(files.seal)
    is_encrypted = settings.store.encryption == "on"
    if seal is not None:
        seal.refuse_other_mode(is_encrypted, files.folder)
    if not is_encrypted:
        return None
    given = credential(CREDENTIAL)
    if given is not None:
        return Secret(_parse(_read(given), given), f"credential {CREDENTIAL}")
    if settings.store.passphrase_file is not None:
        _refuse_readable_by_others(settings.store.passphrase_file)
        is_new = seal is None and not files.database.exists()
        return from_passphrase(
            settings.store.passphrase_file, seal.kdf if seal else None, is_new=is_new
        )
    path = settings.effective_store_key_file
    _refuse_inside(path, settings.state_dir)
    if not path.exists():
        _refuse_lost(path, files)
        make_key_file(path)
    _refuse_readable_by_others(path)
    return Secret(_parse(_read(path), path), f"key file {path}")


def from_passphrase(path: Path, kdf: Mapping[str, Any] | None, *, is_new: bool) -> Secret:
    """The key that Argon2id derives from the first line of `path`. Raises: KeyUnusable."""
    if kdf is None:
        if not is_new:
            raise KeyUnusable(
                f"Passphrase file {path} is set, but the store was sealed without a passphrase (or its "
                "seal.json is gone): unset store.passphrase_file, or restore seal.json."
            )
        kdf = {"name": "argon2id", "salt": secrets.token_hex(16), **ARGON2}
    words = _read(path).split(b"\n")[0].rstrip(b"\r")
    if len(words) < LEAST_PASSPHRASE:
        raise KeyUnusable(
            f"The passphrase in {path} has {len(words)} bytes, the minimum is {LEAST_PASSPHRASE}: "
            "choose a longer one."
        )
    try:
        costs = {name: int(kdf[name]) for name in ARGON2}
        salt = bytes.fromhex(kdf["salt"])
        if any(not 1 <= costs[name] <= most for name, most in _MOST.items()):
            raise ValueError(f"{costs} is out of bounds {_MOST}")
    except (KeyError, TypeError, ValueError) as exc:
        raise KeyUnusable(
            f"The Argon2id parameters in the seal are invalid ({exc}): restore seal.json."
        ) from exc
    raw = hash_secret_raw(
        words,
        salt,
        time_cost=costs["time_cost"],
        memory_cost=costs["memory_kib"],
        parallelism=costs["lanes"],
        hash_len=KEY_BYTES,
        type=Type.ID,
    )
    return Secret(raw, "a passphrase", kdf)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise KeyUnusable(
            f"Key {path} cannot be read: {exc.strerror}. Make it readable for this user."
        ) from exc


def _parse(content: bytes, path: Path) -> bytes:
    """32 raw bytes, or 64 hexadecimal digits."""
    if len(content) == KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyUnusable(
            f"Key {path} has {len(content)} bytes, a key is {KEY_BYTES} raw bytes or "
            f"{2 * KEY_BYTES} hexadecimal digits: replace it with the right file."
        )
    return key


def _refuse_inside(path: Path, state_dir: Path) -> None:
    if path.resolve().is_relative_to(state_dir.resolve()):
        raise KeyUnusable(
            f"Key file {path} is inside the state directory {state_dir}, so whoever takes the data "
            "takes the key: set store.key_file to a path outside it."
        )


def _refuse_lost(path: Path, files: StoreFiles) -> None:
    if files.seal.exists() or files.database.exists():
        raise KeyUnusable(
            f"Key file {path} does not exist, and store {files.folder} does not open without its key: "
            "put the key back, or move that folder away to start with a new store."
        )


def _refuse_readable_by_others(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as exc:
        raise KeyUnusable(
            f"Key {path} cannot be read: {exc.strerror}. Put it there or change the setting."
        ) from exc
    if found.st_mode & 0o077:
        raise KeyUnusable(
            f"Key {path} has mode {found.st_mode & 0o777:04o}, so others may read it; the most is 0600: "
            f"run `chmod 600 {path}`."
        )
    if found.st_uid not in (0, os.geteuid()):
        raise KeyUnusable(
            f"Key {path} belongs to user {found.st_uid}, but must belong to user {os.geteuid()} or root: "
            f"run `chown {os.geteuid()} {path}`."
        )


def make_key_file(path: Path) -> None:
    """Make a new key, whole and on the disk before anything is sealed with it; of two makers one wins."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(fd)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except OSError as exc:
        raise KeyUnusable(
            f"Key file {path} cannot be created: {exc.strerror}. Make its folder writable for this user, "
            "set store.key_file, or provide a systemd credential."
        ) from exc
