"""The journal of what must outlive the database: whether keys were made, revocations, erasures, deletions.

A database can be lost, or replaced by an older copy of itself. Without a record outside it, the first
would open the daemon to everybody and the second would revive revoked keys and erased rows. The journal is
that record: a file beside the database with one line for each act, numbered 1, 2, 3, ...

    line = base64(nonce, AES-256-GCM(key, entry))      the key is a subkey of the store's
    mac[n] = HMAC-SHA256(key, id, n, kind, what, utc_ms, mac[n-1])

An entry is on disk before its act is acknowledged. The database stores the number up to which it has
applied the journal (`store/journal_progress.py`), so an older copy shows what it lacks, and
`store/rollback_detection.py` has it replayed before anything is served. (number, mac) of the newest entry
is the head; the database and the audit anchor keep it, which reveals a journal that was cut, replaced or
deleted. Entries contain key ids and, for erased and deleted data, keyed pseudonyms: no name can be read
from the file, even with its key. Entries that every backup has applied are dropped (`compact`).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hmac
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeagent.durable import open_regular, sync_folder
from edgeagent.errors import EdgeAgentError, StoreLocked
from edgeagent.store.connection import from_os
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.disk_reserve import DiskReserve
from edgeagent.store.sql import now_ms
from edgeagent.store.store_key import Secret

Kind = Literal[
    "keyed", "open", "revoke", "expire", "erase", "delete", "hold", "release", "abandon", "reset"
]  # fmt: skip
# expire: `what` is a key id and its end, UTC in milliseconds.
# keyed: from here on requests need a key. open: the last record of a key was deleted on purpose.
# delete: one row that its client deleted (store/client_deletion.py).
# abandon: the erasure or deletion with the number in `what` has failed and must not be repeated.
# reset: an administrator has accepted the loss of keys.
MOST_ENTRIES = 4096  # beyond this, entries that no backup needs are dropped
MOST_BYTES = 1 << 30
LONG_ENTRIES = (
    16 * MOST_ENTRIES
)  # from here on, backups are made early, so that the oldest can be deleted
_NONCE_BYTES = 12
_NO_KEY = sha256(b"edgeagent: a journal without a key").digest()
_AAD = b"edgeagent journal 1"


class JournalEntry(msgspec.Struct, frozen=True):
    """One act. `what`: a key id, pseudonyms as JSON, or empty."""

    n: int
    kind: Kind
    what: str
    utc_ms: int
    mac: bytes


class JournalHeader(msgspec.Struct, frozen=True):
    """The first line of the file: the journal's id, and the sum of the dropped entries."""

    id: str
    n: int
    mac: bytes
    is_keyed: bool
    revoked: list[str] = []


class JournalPosition(msgspec.Struct, frozen=True):
    """A position in one journal, as others store it."""

    id: str
    n: int
    mac: bytes


@dataclass(frozen=True)
class JournalContents:
    """The header and all entries of a journal."""

    base: JournalHeader
    entries: list[JournalEntry] = field(default_factory=list)

    @property
    def head(self) -> JournalPosition:
        return self.place_of(self.entries[-1] if self.entries else self.base)

    def place_of(self, last: JournalHeader | JournalEntry) -> JournalPosition:
        return JournalPosition(self.base.id, last.n, last.mac)

    @cached_property
    def is_keyed(self) -> bool:
        """Whether requests must bring a key."""
        return _is_keyed(self.entries, self.base.is_keyed)

    @property
    def revoked(self) -> list[str]:
        return [*self.base.revoked, *(e.what for e in self.entries if e.kind == "revoke")]

    @cached_property
    def abandoned(self) -> set[int]:
        return {int(e.what) for e in self.entries if e.kind == "abandon"}

    def grown(self, new: Sequence[JournalEntry]) -> JournalContents:
        """The same with more entries. Reuses derived values, since there may be many entries."""
        made = JournalContents(self.base, [*self.entries, *new])
        made.__dict__["is_keyed"] = _is_keyed(new, self.is_keyed)
        return made

    def mac_at(self, n: int) -> bytes | None:
        """The mac of entry `n`; None if the journal does not have it."""
        if n == self.base.n:
            return self.base.mac
        at = n - self.base.n - 1
        return self.entries[at].mac if 0 <= at < len(self.entries) else None

    def holds(self, place: JournalPosition) -> bool:
        """Whether that position is in this journal, so that this is the same journal or a longer one."""
        if place.id != self.base.id or place.n > self.head.n:
            return False
        found = self.mac_at(place.n)
        return found is None or hmac.compare_digest(found, place.mac)


def _is_keyed(entries: Sequence[JournalEntry], before: bool) -> bool:
    said = [e.kind for e in entries if e.kind in ("keyed", "open", "reset")]
    return said[-1] != "open" if said else before


class Journal:
    """The journal of one store. Any thread and process: a lock makes writers take turns."""

    def __init__(
        self, files: StoreFiles, secret: Secret | None, disk_reserve: DiskReserve | None = None
    ) -> None:
        self._files = files
        self._disk_reserve = disk_reserve or DiskReserve(files.disk_reserve)
        key = secret.subkey("journal") if secret is not None else _NO_KEY
        self._cipher = AESGCM(key)
        self._mac_key = secret.subkey("journal chain") if secret is not None else _NO_KEY
        self._names = secret.subkey("journal names") if secret is not None else _NO_KEY
        self._turn = threading.RLock()
        self._depth = 0
        self._cached: tuple[int, int, JournalContents] | None = (
            None  # inode, number of valid bytes, their contents
        )

    def pseudonym(self, kind: str, name: str) -> str:
        """Always the same for the same name; cannot be reversed without the key of the store."""
        tag = hmac.digest(self._names, msgspec.msgpack.encode([kind, name]), "sha256")
        return tag[:16].hex()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other writers out during an act of several steps."""
        with self._turn:
            self._depth += 1
            lock = self._locked() if self._depth == 1 else None
            try:
                yield
            finally:
                self._depth -= 1
                if lock is not None:
                    os.close(lock)

    def read(self) -> JournalContents | None:
        """The whole journal; None if there is none. An incomplete last line was never acknowledged and is
        ignored. Raises: StoreLocked for a damaged or forged journal."""
        return self._read()[0]

    def begin(self, *, is_keyed: bool, revoked: Sequence[str] = ()) -> JournalContents:
        """Start a new journal, replacing any that exists. Raises: what the disk raises."""
        name = secrets.token_hex(8)
        mac = hmac.digest(self._mac_key, name.encode(), "sha256")
        made = JournalContents(JournalHeader(name, 0, mac, is_keyed, list(revoked)))
        with self.alone():
            self._replace(made)
        return made

    def append(self, kind: Kind, what: str = "") -> JournalContents:
        """Add an entry; it is on disk when this returns. Returns the journal with it as its head.

        Raises: StoreLocked if there is no sound journal to add to; StorageFull, StorageFailed.
        """
        with self.alone():
            found, n_bytes = self._read()
            if found is None:
                raise StoreLocked(
                    f"Journal {self._files.journal} does not exist, but ending a key or erasing data must be "
                    "recorded in it: run `edgeagent keys reset-access` on the device."
                )
            entry = self._next(found, kind, what)
            line = self._sealed(entry)
            self._try_twice(lambda: self._write_at(n_bytes, line))
            return found.grown([entry])

    def compact(self, keep_from_n: int) -> bool:
        """Drop entries up to `keep_from_n`, which nothing needs any more, if there are many."""
        with self.alone():
            found = self.read()
            if found is None or len(found.entries) <= MOST_ENTRIES:
                return False
            gone = [e for e in found.entries if e.n <= keep_from_n]
            if not gone:
                return False
            before = JournalContents(found.base, gone)
            base = JournalHeader(
                found.base.id, gone[-1].n, gone[-1].mac, before.is_keyed,
                list(dict.fromkeys(before.revoked))[-10 * MOST_ENTRIES :],
            )  # fmt: skip
            self._replace(replace(found, base=base, entries=found.entries[len(gone) :]))
            return True

    # ---- the file

    def _locked(self) -> int:
        try:
            fd = os.open(self._files.journal_lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise from_os(exc, self._files.journal) from exc
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _read(self) -> tuple[JournalContents | None, int]:
        """The contents of the file, and the number of valid bytes. Reads only the new lines of a file that
        has grown."""
        try:
            with open_regular(self._files.journal, MOST_BYTES) as file:
                inode, size = os.fstat(file.fileno()).st_ino, os.fstat(file.fileno()).st_size
                cached = self._cached
                if cached is None or cached[0] != inode or size < cached[1]:
                    cached = None
                start = cached[1] if cached is not None else 0
                file.seek(start)
                raw = file.read()
        except FileNotFoundError:
            return None, 0
        except OSError as exc:
            raise from_os(exc, self._files.journal) from exc
        found, n_bytes = self._parsed(raw, cached[2] if cached is not None else None)
        self._cached = inode, start + n_bytes, found
        return found, start + n_bytes

    def _parsed(self, raw: bytes, before: JournalContents | None) -> tuple[JournalContents, int]:
        lines = raw.split(b"\n")
        torn = lines.pop()  # after the last newline: nothing, or an interrupted write
        found = before
        new: list[JournalEntry] = []
        n_bytes = 0
        for at, line in enumerate(lines):
            try:
                if found is None:
                    found = JournalContents(self._opened(line, JournalHeader))
                else:
                    head = found.place_of(new[-1]) if new else found.head
                    new.append(self._checked(head, line))
            except ValueError as exc:
                if found is not None and at == len(lines) - 1 and not torn:
                    break  # the newline reached the disk before the text
                raise self._damaged(f"line {at + 1} was changed or moved") from exc
            n_bytes += len(line) + 1
        if found is None:
            raise self._damaged("it is empty")
        return found.grown(new) if new else found, n_bytes

    def _checked(self, before: JournalPosition, line: bytes) -> JournalEntry:
        entry: JournalEntry = self._opened(line, JournalEntry)
        mac = self._mac(before, entry.kind, entry.what, entry.utc_ms)
        if entry.n != before.n + 1 or not hmac.compare_digest(mac, entry.mac):
            raise ValueError("not the next entry")
        return entry

    def _next(self, found: JournalContents, kind: Kind, what: str) -> JournalEntry:
        utc_ms = now_ms()
        mac = self._mac(found.head, kind, what, utc_ms)
        return JournalEntry(found.head.n + 1, kind, what, utc_ms, mac)

    def _mac(self, before: JournalPosition, kind: str, what: str, utc_ms: int) -> bytes:
        fields = [before.id, before.n + 1, kind, what, utc_ms, before.mac]
        return hmac.digest(self._mac_key, msgspec.msgpack.encode(fields), "sha256")

    def _sealed(self, record: JournalHeader | JournalEntry) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        text = msgspec.msgpack.encode(record)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text, _AAD)) + b"\n"

    def _opened(self, line: bytes, kind: type[Any]) -> Any:
        """Raises: ValueError."""
        raw = base64.b64decode(line, validate=True)
        try:
            text = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _AAD)
        except InvalidTag as exc:
            raise ValueError("not authentic") from exc
        try:
            return msgspec.msgpack.decode(text, type=kind)
        except msgspec.MsgspecError as exc:
            raise ValueError("of another version") from exc

    def _write_at(self, n_bytes: int, line: bytes) -> None:
        """Add a line after the valid ones, overwriting the remains of an interrupted write."""
        with self._files.journal.open("rb+") as file:
            file.truncate(n_bytes)
            file.seek(n_bytes)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, contents: JournalContents) -> None:
        lines = self._sealed(contents.base) + b"".join(map(self._sealed, contents.entries))
        self._try_twice(lambda: self._replace_file(lines))

    def _replace_file(self, lines: bytes) -> None:
        draft = self._files.journal.with_name(".journal.part")
        try:
            fd = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(lines)
                file.flush()
                os.fsync(fd)
            draft.replace(self._files.journal)
            sync_folder(self._files.folder)
        finally:
            draft.unlink(missing_ok=True)

    def _try_twice(self, write: Any) -> None:
        """On a full disk, try once more with space from the disk reserve."""
        try:
            try:
                write()
            except OSError:
                if not self._disk_reserve.release():
                    raise
                write()
        except OSError as exc:
            raise from_os(exc, self._files.journal) from exc

    def _damaged(self, what: str) -> EdgeAgentError:
        return StoreLocked(
            f"Journal {self._files.journal} of revocations and erasures is damaged ({what}): restore "
            "that file, or run `edgeagent keys reset-access` on the device."
        )
