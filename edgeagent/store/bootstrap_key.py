"""The first API key of a device without an administrator at the keyboard, written to a file at the first
start.

    FILE exists: leave it and the store unchanged
    the draft beside FILE holds the secret of a live key: an earlier start was interrupted; rename the draft
    the store has keys: do nothing
    otherwise: write a new secret to the draft, make the key, rename the draft to FILE

The draft is written before the key is made. If the process is killed in between, the draft holds a secret
without a key; if it is killed later, the next start finds the draft. A key whose secret is lost cannot
arise.
"""

from __future__ import annotations

import getpass
import logging
import os
from pathlib import Path

from edgeagent.durable import sync_folder
from edgeagent.errors import StartFailed
from edgeagent.store import keys
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.types.caller import ALL_SCOPES

logger = logging.getLogger(__name__)

NAME = "bootstrap"


def bootstrap(keyring: Keyring, path: Path) -> bool:
    """Make the first key and write its secret to `path`, mode 0600. Returns whether a file was written.

    Raises: StartFailed if the file exists although no key does, or cannot be written; StoreLocked.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        if keyring.is_any_made():
            return not path.exists() and _finish(keyring, draft, path)
        if os.path.lexists(path):
            raise StartFailed(
                f"Bootstrap key file {path} exists although this daemon has no key yet; it is not "
                "overwritten. Move it away, or name another file."
            )
        draft.unlink(missing_ok=True)
        secret = keys.new_secret()
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(fd)
        sync_folder(draft.parent)
        spec = KeySpec(name=NAME, scopes=ALL_SCOPES)
        made = keyring.create(spec, f"cli:{getpass.getuser()}", secret).result()
        _name(draft, path)
    except OSError as exc:
        raise StartFailed(
            f"Bootstrap key file {path} cannot be written: {exc.strerror}. Name a file in a folder that "
            "exists and is writable for this user."
        ) from exc
    logger.info("bootstrap_key id=%s file=%s", made.key.id, path)
    return True


def _finish(keyring: Keyring, draft: Path, path: Path) -> bool:
    """Rename the draft of an interrupted start. Raises: OSError."""
    try:
        secret = draft.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    if keyring.caller(secret, is_exposed=True) is None:
        return False
    _name(draft, path)
    return True


def _name(draft: Path, path: Path) -> None:
    """Rename the draft to `path`, which must not exist. Raises: OSError."""
    try:
        os.link(draft, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: FAT
        draft.rename(path)
    draft.unlink(missing_ok=True)
    sync_folder(path.parent)
