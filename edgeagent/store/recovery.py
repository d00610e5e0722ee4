"""Recovery of a database that cannot be trusted: it is set aside, kept, and replaced.

    restoring.db exists: an earlier replacement was interrupted; finish it
    the file opens and passes its checks: nothing to do
    it fails although the seal says that the key is right, or it is missing while its seal exists:
        make restoring.db from the newest sound backup, if there is one
        move the log, its index and the database into quarantine/, in this order
        rename restoring.db to the database

The log moves first: SQLite would replay it into a different database of that name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.durable import sync_file, sync_folder
from edgeagent.errors import KeyUnusable, StoreDamaged
from edgeagent.store import wal_check
from edgeagent.store.backup import Backups
from edgeagent.store.connection import (
    PLAIN_HEADER,
    SqliteError,
    StoreConnection,
    complaints,
    connect,
    is_damage,
    set_wal,
    translate,
)
from edgeagent.store.database_files import StoreFiles, beside
from edgeagent.store.migrations import MIGRATIONS, Migration, refuse_newer
from edgeagent.store.store_key import Seal, Secret

logger = logging.getLogger(__name__)

WHY = "why.txt"


@dataclass(frozen=True)
class StoreNotice:
    """A message about the store for its owner."""

    code: str
    message: str


def prepare(
    files: StoreFiles,
    secret: Secret | None,
    backups: Backups,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> tuple[list[StoreNotice], StoreConnection | None]:
    """Bring the database file into a state that can be opened. Only while no other process has it open.

    Returns notices, and the connection that found the file sound, if any: closing it would copy the log
    into the file, for which a full disk has no room. Never sets a file aside because of its key: the seal
    decides that before.

    Raises: KeyUnusable, StoreUnusable, StorageFull, StorageFailed.
    """
    key = secret.raw if secret else None
    backups.sweep()
    seal = Seal.read(files.seal)
    if seal is not None:
        seal.refuse_other(secret, files.folder)
    notices, is_new = _settle_place(files, secret, seal, backups)
    db = None
    if not is_new:
        try:
            db, said = _examine(files, key, migrations)
            notices += said
        except StoreDamaged as exc:
            if seal is None:
                raise KeyUnusable(
                    f"Database {files.database} does not open ({exc}), and without seal.json a wrong "
                    "key cannot be told from damage: restore that file or provide the right key."
                ) from exc
            notices.append(_replace(files, backups, exc.message))
    if seal is None:
        # Before the seal is written: a seal without a database means that the database was lost.
        files.database.touch(mode=0o600)
        sync_folder(files.folder)
        Seal.of(secret).write(files.seal)
    return notices, db


def _settle_place(
    files: StoreFiles, secret: Secret | None, seal: Seal | None, backups: Backups
) -> tuple[list[StoreNotice], bool]:
    """Make sure that the database path holds a regular file, or that a new one may be created there
    (True).

    Raises: KeyUnusable, OSError.
    """
    notices = [
        _set_aside(files, path)
        for path in (files.restoring, *beside(files.database))
        if _is_odd(path)
    ]
    if files.restoring.exists():
        notices.append(_swap(files, "store_restored", "An interrupted restore was finished"))
    is_odd = _is_odd(files.database)
    is_new = is_odd or not files.database.exists() or files.database.stat().st_size == 0
    if seal is None and not is_new:
        _refuse_unsealed(files, secret)
    if is_new and _was_begun(files, seal):
        what = "it is not a regular file" if is_odd else "its file is missing or empty"
        notices.append(_replace(files, backups, what))
        return notices, not files.database.exists()
    if is_odd:
        raise KeyUnusable(
            f"Database {files.database} is not a regular file: move it away to start with a new store."
        )
    return notices, is_new


def _is_odd(path: Path) -> bool:
    """Whether something exists that SQLite cannot open as a file: a folder, a dangling link, a FIFO."""
    return os.path.lexists(path) and not path.is_file()


def _set_aside(files: StoreFiles, path: Path) -> StoreNotice:
    """Move away what is in the place of a file that SQLite creates. Raises: OSError."""
    aside = _new_aside(files, "store_log_damaged")
    path.rename(aside / path.name)
    sync_folder(files.folder)
    what = f"{path.name} was not a regular file and was moved to {aside}"
    if path != files.restoring:
        what += ": the last acknowledged writes may be missing"
    return _said(StoreNotice("store_log_damaged", f"{what}."), aside)


def _was_begun(files: StoreFiles, seal: Seal | None) -> bool:
    """Whether a database existed that is now lost or empty. The journal is created after the database."""
    return files.journal.exists() or (seal is not None and not files.database.is_file())


def restore(files: StoreFiles, backups: Backups, backup: Path) -> StoreNotice:
    """Replace the database by a backup; the old files are kept in quarantine/.

    Only while no process has the store open. Raises: BackupFailed, OSError.
    """
    backups.verify(backup)
    _stage(files, backup)
    return _swap(files, "store_restored", f"{backup.name} has become the database on request")


def earlier(files: StoreFiles) -> list[StoreNotice]:
    """The notices of earlier starts, oldest first, for as long as the quarantined files exist."""
    found = []
    for why in sorted(files.quarantine.glob(f"*/{WHY}")):
        message = why.read_text(encoding="utf-8", errors="replace").strip()
        found.append(StoreNotice(why.parent.name.split("-")[-1], message))
    return found


def _refuse_unsealed(files: StoreFiles, secret: Secret | None) -> None:
    """For a database without a seal: its first bytes show whether it is plain text."""
    with files.database.open("rb") as file:
        is_plain = file.read(len(PLAIN_HEADER)) == PLAIN_HEADER
    if is_plain and secret is not None:
        raise KeyUnusable(
            f"Database {files.database} is plain text, but store.encryption is on: set it to off, or move "
            "the file away to start with a new store."
        )


def _examine(
    files: StoreFiles, key: bytes | None, migrations: Sequence[Migration]
) -> tuple[StoreConnection, list[StoreNotice]]:
    """A connection to a sound database, and notices about its log.

    Raises: StoreDamaged with only the damage, StoreUnusable, StorageFull, StorageFailed.
    """
    log = wal_check.read(beside(files.database)[0])
    db = connect(files.database, key, role="writer")
    with contextlib.ExitStack() as undo:
        undo.callback(db.close)
        try:
            set_wal(db, "FULL")
            said = _bring_in(db, files, log)
            refuse_newer(db, migrations)
            wrong = complaints(db, is_whole=said is not None)
        except SqliteError as exc:
            if is_damage(exc):
                raise StoreDamaged(str(exc)) from exc
            raise translate(exc, files.database) from exc
        if wrong:
            raise StoreDamaged(wrong[0])
        undo.pop_all()
        return db, said or []


def _bring_in(
    db: StoreConnection, files: StoreFiles, log: wal_check.WalSummary
) -> list[StoreNotice] | None:
    """Copy the log into the file and truncate it: after a power cut, the pages it replaces may be torn.

    None on a full disk: trying would use up the room that readers need. Raises: SqliteError.
    """
    path, _ = beside(files.database)
    if path.exists() and shutil.disk_usage(files.folder).free < path.stat().st_size:
        logger.warning("store_checked_in_part reason=no_room")
        return None
    _busy, n_recovered, _n_brought_in = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    said = []
    if what := log.lost(n_recovered):
        said.append(_keep_log(files, what))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return said


def _keep_log(files: StoreFiles, what: str) -> StoreNotice:
    """Keep a copy of a damaged log; the database up to the damage is sound and newer than any backup."""
    aside = _new_aside(files, "store_log_damaged")
    shutil.copyfile(beside(files.database)[0], aside / beside(files.database)[0].name)
    message = f"After an unclean shutdown {what}: the last acknowledged writes are missing"
    return _said(StoreNotice("store_log_damaged", f"{message}; the log is kept in {aside}."), aside)


def _replace(files: StoreFiles, backups: Backups, what: str) -> StoreNotice:
    backup = backups.newest_sound()
    damage = f"The database was damaged ({what})"
    if backup is None:
        return _swap(
            files,
            "store_lost",
            f"{damage}, and there is no sound backup: a new, empty one was created",
        )
    _stage(files, backup.path)
    then = f"the backup of {backup.taken} was restored, data stored after it is missing"
    return _swap(files, "store_restored", f"{damage}: {then}")


def _stage(files: StoreFiles, backup: Path) -> None:
    """Copy a backup to restoring.db, which exists only when it is complete."""
    draft = files.restoring.with_name(".restoring.part")
    try:
        shutil.copyfile(backup, draft)
        draft.chmod(0o600)
        sync_file(draft)
        draft.replace(files.restoring)
        sync_folder(files.folder)
    finally:
        draft.unlink(missing_ok=True)


def _swap(files: StoreFiles, code: str, message: str) -> StoreNotice:
    """Set the database aside and put restoring.db, if any, in its place."""
    old = [path for path in (*beside(files.database), files.database) if os.path.lexists(path)]
    aside = _new_aside(files, code) if old else None
    if aside is not None:
        message += f"; the former file is kept in {aside}"
    notice = _said(StoreNotice(code, f"{message}."), aside)
    for path in old:
        assert aside is not None
        path.rename(aside / path.name)
        sync_folder(files.folder)
        sync_folder(aside)
    if files.restoring.exists():
        files.restoring.rename(files.database)
        sync_folder(files.folder)
    return notice


def _new_aside(files: StoreFiles, code: str) -> Path:
    """A new quarantine folder, numbered because clocks jump."""
    numbers = [int(path.name[:4]) for path in files.quarantine.glob("[0-9][0-9][0-9][0-9]-*")]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = files.quarantine / f"{max(numbers, default=0) + 1:04d}-{stamp}-{code}"
    aside.mkdir(mode=0o700)
    return aside


def _said(notice: StoreNotice, aside: Path | None) -> StoreNotice:
    """Log a notice, and store it for later starts beside the files it is about."""
    logger.warning("%s %s", notice.code, notice.message)
    if aside is not None:
        (aside / WHY).write_text(notice.message + "\n", encoding="utf-8")
    return notice
