"""What happens to a database that cannot be trusted: it is set aside, kept, and replaced.

    restoring.db is there: an earlier replacement was cut short; finish it
    the file opens and checks: nothing to do
    it does not, though the seal says the key is right:
        make restoring.db from the newest sound backup, if there is one
        move the log, its index and the database into quarantine/, in this order
        rename restoring.db to the database

The log moves first: beside another database SQLite would replay it into that.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.catalog.durable import sync_file, sync_folder
from edgeagent.errors import KeyUnusable
from edgeagent.store.backup import Backups
from edgeagent.store.connection import (
    PLAIN_HEADER,
    SqliteError,
    complaints,
    connect,
    from_os,
    is_damage,
    set_wal,
    translate,
)
from edgeagent.store.files import StoreFiles, beside
from edgeagent.store.migrations import MIGRATIONS, Migration, refuse_newer
from edgeagent.store.secret import Seal, Secret

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """Something about the store that its owner should know, in plain words."""

    code: str
    message: str


def prepare(
    files: StoreFiles,
    secret: Secret | None,
    backups: Backups,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> list[Notice]:
    """Bring the database file into a state that can be opened. Only while nobody else has it open.

    Raises: KeyUnusable, StoreUnusable, StorageFull, StorageFailed. Never sets a file aside because of
    its key: that is decided before, by the seal.
    """
    key = secret.raw if secret else None
    backups.sweep()
    notices = []
    if files.restoring.exists():
        aside = _swap(files)
        notices.append(_said("store_restored", f"An interrupted restore was finished; {aside}."))
    is_new = not files.database.exists() or files.database.stat().st_size == 0
    seal = Seal.read(files.seal)
    if seal is not None:
        seal.refuse_other(secret, files.folder)
    elif not is_new:
        _refuse_unsealed(files, secret)
    if not is_new:
        what = _damage(files, key, migrations)
        if what is not None:
            if seal is None:
                raise KeyUnusable(
                    f"Database {files.database} does not open ({what}), and without seal.json nobody "
                    "can tell a wrong key from damage: restore that file or give the right key."
                )
            notices.append(_replace(files, backups, what))
    if seal is None:
        Seal.of(secret).write(files.seal)
    return notices


def restore(files: StoreFiles, backups: Backups, backup: Path) -> Notice:
    """Put a backup in the database's place; what was there is kept in quarantine/.

    Only while nobody has the store open. Raises: BackupFailed, OSError.
    """
    backups.verify(backup)
    _stage(files, backup)
    return _said("store_restored", f"{backup.name} has become the database; {_swap(files)}.")


def _refuse_unsealed(files: StoreFiles, secret: Secret | None) -> None:
    """A database without its seal: its first bytes still tell plain text from the rest."""
    with files.database.open("rb") as file:
        is_plain = file.read(len(PLAIN_HEADER)) == PLAIN_HEADER
    if is_plain and secret is not None:
        raise KeyUnusable(
            f"Database {files.database} is plain text, store_encryption is on: set it to off, or move "
            "the file away to begin anew."
        )


def _damage(
    files: StoreFiles, key: bytes | None, migrations: Sequence[Migration] = MIGRATIONS
) -> str | None:
    """What is wrong with the database, or None. Raises: StoreUnusable, StorageFull, StorageFailed."""
    db = connect(files.database, key, role="writer")
    try:
        set_wal(db, "FULL")
        # Pages that the log replaces may be torn in the file after a power cut: bring them in first.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        refuse_newer(db, migrations)
        wrong = complaints(db)
        return wrong[0] if wrong else None
    except SqliteError as exc:
        if is_damage(exc):
            return str(exc)
        raise translate(exc, files.database) from exc
    finally:
        db.close()


def _replace(files: StoreFiles, backups: Backups, what: str) -> Notice:
    backup = backups.newest_sound()
    try:
        if backup is not None:
            _stage(files, backup.path)
        aside = _swap(files, what)
    except OSError as exc:
        raise from_os(exc, files.database) from exc
    if backup is None:
        return _said(
            "store_lost",
            f"The database was damaged ({what}) and there is no sound backup: an empty one was begun; "
            f"{aside}.",
        )
    return _said(
        "store_restored",
        f"The database was damaged ({what}): the backup of {backup.taken} has been restored, what was "
        f"stored after it is missing; {aside}.",
    )


def _stage(files: StoreFiles, backup: Path) -> None:
    """Copy a backup to restoring.db, which is there only when it is whole."""
    draft = files.restoring.with_name(".restoring.part")
    try:
        shutil.copyfile(backup, draft)
        draft.chmod(0o600)
        sync_file(draft)
        draft.replace(files.restoring)
        sync_folder(files.folder)
    finally:
        draft.unlink(missing_ok=True)


def _swap(files: StoreFiles, what: str = "replaced on request") -> str:
    """Set the database aside and let restoring.db, if any, take its place. Says where the old one is."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = files.quarantine / stamp
    n = 1
    while aside.exists():
        n += 1
        aside = files.quarantine / f"{stamp}-{n}"
    old = [path for path in (*beside(files.database), files.database) if path.exists()]
    if old:
        aside.mkdir(parents=True, mode=0o700)
        (aside / "why.txt").write_text(f"{what}\n", encoding="utf-8")
    for path in old:
        path.rename(aside / path.name)
        sync_folder(files.folder)
        sync_folder(aside)
    if files.restoring.exists():
        files.restoring.rename(files.database)
        sync_folder(files.folder)
    return f"the former file is kept in {aside}" if old else "there was no former file"


def _said(code: str, message: str) -> Notice:
    logger.warning("%s %s", code, message)
    return Notice(code, message)
