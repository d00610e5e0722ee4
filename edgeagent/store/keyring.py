"""The keys of one store: who a secret belongs to, and making and ending keys, each act audited.

Looking up happens on the event loop with a connection of its own, for every request: a key made or
revoked by another process counts at once. It takes 11 us, without keys 9 us (best of many short runs, 2-core
x86-64 VM, 2026-11), and more after something was committed, when it is read again (store/key_cache.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edgeagent.errors import EdgeAgentError, Forbidden, StoreLocked
from edgeagent.store import audit, audit_anchor, clock, erasure_epochs, journal_progress, keys
from edgeagent.store.clock import Clock, DeviceClock
from edgeagent.store.connection import StoreConnection, connect
from edgeagent.store.database import Database
from edgeagent.store.journal import JournalContents
from edgeagent.store.key_cache import KeyCache
from edgeagent.store.key_clock import KeyClock
from edgeagent.store.key_record import Key, KeySpec, NewKey
from edgeagent.store.readers import Readers
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import ALL_SCOPES, LOCAL, Caller

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOCK_CHECK_S = 1.0  # how often a locked daemon looks whether it is locked still


class Keyring:
    """Writes from any thread, `caller` from one. `close` may be called twice; a given store stays open.

    What it writes is one closure with its audit row: both are on the disk, or neither. What must outlive
    the database is in the journal before that is acknowledged. Without a given store (`store = "off"`) it
    opens the one at `path` where there is one, or where its folder or `anchor_path` remembers one, and as
    soon as another process makes keys there.
    """

    def __init__(
        self, store: Database | None, path: Path, open_store: Callable[[], Database],
        *, anchor_path: Path | None = None, device: Clock | None = None,
    ) -> None:  # fmt: skip
        self._given = store
        self._own: Database | None = None
        self._path = path
        self._open_store = open_store
        self._remembered = (path.parent / "journal", path.parent / "seal.json", anchor_path)
        self._reader: Readers | None = None
        self._memory = KeyCache()
        self._device = device or DeviceClock()
        self._time = KeyClock(self._device)
        self._acts = ThreadPoolExecutor(1, thread_name_prefix="keyring")
        self._why_locked: str | None = None
        self._looked_s = float("-inf")
        self._journal_seen: object = None
        self._journal_file = str(path.parent / "journal")  # looked at for each request

    @property
    def _store(self) -> Database:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = self._open_store()
        return self._own

    @property
    def _is_there(self) -> bool:
        """Whether there is, or ever was, a store."""
        if self._given is not None or self._own is not None or self._path.exists():
            return True
        return any(each is not None and each.exists() for each in self._remembered)

    def close(self) -> None:
        self._acts.shutdown()
        if self._reader is not None:
            self._reader.close()
        if self._own is not None:
            self._own.close()

    # ---- whether anybody may enter

    def check_access(self) -> str | None:
        """Why nobody may enter, or None. Reads the files; kept for `caller`."""
        if not self._is_there:
            return None
        before = self._why_locked
        self._journal_seen = _identity(self._journal_file)
        self._why_locked = self._own_reader().read(self._store.rollback_detector.refusal)
        self._looked_s = time.monotonic()
        if self._why_locked != before:
            if self._why_locked is not None:
                logger.error("store_locked reason=%r", self._why_locked)
            else:
                logger.warning("store_unlocked")
        return self._why_locked

    def _refuse_locked(self) -> None:
        """Raises: StoreLocked. Looks again when the journal has changed, and while locked each second."""
        is_due = self._looked_s == float("-inf") or (
            self._why_locked is not None and time.monotonic() - self._looked_s > LOCK_CHECK_S
        )
        if is_due or self._journal_seen != _identity(self._journal_file):
            self.check_access()
        if self._why_locked is not None:
            raise StoreLocked(self._why_locked)

    # ---- looking up

    def caller(self, secret: str | None, *, is_exposed: bool) -> Caller | None:
        """Who calls: the owner of the key; without keys, on an address that is not exposed, whoever is
        on this machine; else nobody. Notes for the task of this request which erasures it has seen
        (store/erasure_epochs.py). Raises: StoreLocked where nobody can say."""
        if not self._is_there:
            return None if is_exposed else LOCAL
        self._refuse_locked()

        memory = self._memory

        def look(db: StoreConnection) -> tuple[Caller | None, bool]:
            memory.look(db)
            erasure_epochs.SEEN.set(memory.newest_erasure)
            if not is_exposed and not memory.is_any_made:
                return LOCAL, False
            found = memory.find(db, secret) if secret is not None else None
            if found is None or found.revoked_ms is not None:
                return None, False
            if found.expires_ms is None or self._time.now_ms(db) < found.expires_ms:
                return found.caller(), False
            return None, clock.floor_ms(db) < found.expires_ms

        caller, has_expired = self._own_reader().read(look, in_snapshot=False)
        if has_expired:  # from now on it has, whatever the clock says
            self._store.write(self._time.keep, essential=True)
        return caller

    def _own_reader(self) -> Readers:
        # Not the store's readers: a long export there would hold up the event loop.
        if self._reader is None:
            path, secret = self._store.files.database, self._store.secret
            raw = secret.raw if secret is not None else None
            self._reader = Readers(lambda: connect(path, raw, role="reader"), path, n_readers=1)
        return self._reader

    def key_ids(self, owner: str) -> list[str]:
        """The ids under which this owner's requests come."""
        known = self._own_reader().read(keys.all_keys) if self._is_there else []
        made = [key.id for key in known if key.owner == owner]
        return [*made, LOCAL.key_id] if owner == LOCAL.owner else made

    def is_any_made(self) -> bool:
        """Whether a key is needed also on loopback."""
        return self._is_there and self._store.read(keys.is_any_made)

    def is_any_usable(self) -> bool:
        """Whether somebody could call with a key: a live one that is not sealed."""
        return self._is_there and self._store.read(
            lambda db: keys.is_any_usable(db, KeyClock(self._device).now_ms(db))
        )

    def all(self) -> list[Key]:
        return self._store.read(keys.all_keys) if self._is_there else []

    def get(self, key_id: str) -> Key:
        """Raises: KeyNotFound."""
        return self._store.read(lambda db: keys.get(db, key_id))

    def now_ms(self) -> int:
        """UTC in milliseconds, by which keys expire."""
        return self._store.read(KeyClock(self._device).now_ms) if self._is_there else now_ms()

    # ---- changing

    def create(self, spec: KeySpec, actor: str, secret: str | None = None) -> Future[NewKey]:
        """`secret`: one that `keys.new_secret` made. In the future: InvalidParameter, StoreLocked."""

        def make(db: StoreConnection) -> NewKey:
            if not clock.floor_ms(db):
                KeyClock(self._device).keep(db)
            made = keys.create(db, spec, self._now(db), secret)
            action = "key.seal" if spec.is_break_glass else "key.create"
            self._audit(db, actor, action, made.key.id)
            return made

        return self._act(lambda: self._make(make))

    def revoke(self, key_id: str, actor: str, *, may_be_sealed: bool = True) -> Future[Key]:
        """In the future: KeyNotFound; Forbidden for a sealed key that may not be."""

        def act() -> Key:
            key = self._store.read(lambda db: keys.get(db, key_id))
            _refuse_sealed(key, may_be_sealed, "revoke")
            if key.revoked_ms is not None:
                return key
            journal = self._store.journal.append("revoke", key_id)

            def end(db: StoreConnection) -> Key:
                ended = keys.revoke(db, key_id, self._now(db))
                self._audit(db, actor, "key.revoke", key_id)
                journal_progress.carried_out(db, journal, journal.head.n)
                return ended

            return self._write(end).result()

        return self._act(act)

    def rotate(
        self, key_id: str, actor: str, grace_s: float = 0, *, may_be_sealed: bool = True
    ) -> Future[NewKey]:
        """In the future: KeyNotFound, InvalidParameter; Forbidden for a sealed key that may not be."""

        def act() -> NewKey:
            _refuse_sealed(
                self._store.read(lambda db: keys.get(db, key_id)), may_be_sealed, "rotate"
            )

            def replace(db: StoreConnection) -> NewKey:
                made = keys.rotate(db, key_id, self._now(db), int(grace_s * 1000))
                self._audit(db, actor, "key.rotate", f"{key_id}:{made.key.id}")
                return made

            made = self._make(replace)
            # The old one ends: an older copy of the database must not revive it.
            old = self._store.read(lambda db: keys.get(db, key_id))
            journal = (
                self._store.journal.append("revoke", key_id)
                if old.revoked_ms is not None
                else self._store.journal.append("expire", f"{key_id} {old.expires_ms}")
            )
            self._write(
                lambda db: journal_progress.carried_out(db, journal, journal.head.n)
            ).result()
            return made

        return self._act(act)

    def forget(self, key_id: str, actor: str) -> Future[Key]:
        """In the future: KeyNotFound, InvalidParameter."""

        def drop(db: StoreConnection) -> Key:
            key = keys.forget(db, key_id, self._now(db))
            self._audit(db, actor, "key.forget", key_id)
            return key

        def act() -> Key:
            with self._store.journal.alone():
                if self._store.read(lambda db: keys.get(db, key_id)).is_live(self.now_ms()):
                    return self._write(drop).result()  # which refuses
                journal = self._store.journal.append("revoke", key_id)
                if len(self._store.read(keys.all_keys)) == 1:
                    # First: a kill in between leaves a record, by which keys are needed still.
                    journal = self._store.journal.append("open")
                dropped = self._write(drop).result()
                self._write(
                    lambda db: journal_progress.carried_out(db, journal, *_numbers(journal))
                ).result()
                return dropped

        return self._act(act)

    def reset_access(self, actor: str, name: str, *, keep_keys: bool) -> Future[NewKey | None]:
        """Accept, at the device, that keys or the journal are lost. Ends every key unless `keep_keys`, and
        makes a new one with every scope unless a live one was kept. Not while nothing is wrong: None.

        The journal says so first, so that a kill in between leaves the daemon locked and never open.
        """

        def act() -> NewKey | None:
            store = self._store
            with store.journal.alone():
                if store.read(store.rollback_detector.refusal) is None:
                    return None
                journal = store.rollback_detector.accept_loss(
                    store.read(store.rollback_detector.facts)
                )

                def reset(db: StoreConnection) -> NewKey | None:
                    now = self._now(db)
                    if not keep_keys:
                        db.execute("update key set revoked_ms = ? where revoked_ms is null", (now,))
                    self._note(
                        db, actor, "access.reset", f"keys:{'kept' if keep_keys else 'ended'}"
                    )
                    journal_progress.carried_out(db, journal, *_numbers(journal))
                    if keys.is_any_usable(db, now):
                        return None
                    made = keys.create(db, KeySpec(name=name, scopes=ALL_SCOPES), now)
                    self._audit(db, actor, "key.create", made.key.id)
                    return made

                ended = [] if keep_keys else [k.id for k in store.read(keys.all_keys)]
                for key_id in ended:
                    journal = store.journal.append("revoke", key_id)
                made = self._write(reset).result()
            self._publish(is_accepted=True)
            self.check_access()
            return made

        return self._acts.submit(act)

    def accept_clock(self, actor: str) -> Future[int]:
        """Say, at the device, that its clock is right: a later time that was believed is forgotten.
        Gives the time that was."""

        def accept(db: StoreConnection) -> int:
            before, now = clock.floor_ms(db), self._device.read().wall_ms
            clock.set_floor(db, now)
            self._note(db, actor, "clock.accept", f"from {before} to {now}")
            return before

        def act() -> int:
            before = self._write(accept).result()
            self._time.forget()
            self._publish()
            return before

        return self._acts.submit(act)

    def is_shared(self, owner: str) -> bool:
        """Whether more than one key was made for this owner, dead ones included."""
        return len([key for key in self.all() if key.owner == owner]) > 1

    def note_read(self, caller: Caller, what: str) -> Future[None]:
        """Audit that a key has read what is stored of its owner."""
        return self._write(lambda db: self._note(db, caller.key_id, "data.read", what))

    def note_break_glass(self, caller: Caller, what: str) -> Future[None]:
        """Audit one use of a sealed key."""
        return self._write(lambda db: self._note(db, caller.key_id, "key.break_glass", what))

    def note_altered_model(self, model_id: str) -> Future[None]:
        """Audit that a model was refused because its file is not the approved one."""
        return self._write(
            lambda db: self._note(db, "system", "model.altered", f"model:{model_id}")
        )

    def _make(self, make: Callable[[StoreConnection], NewKey]) -> NewKey:
        """Commit a new key, then see that the journal says that keys are needed, then acknowledge.

        In this order: a kill in between leaves a database that asks for keys, for which the device can
        make another one, and a journal that learns of it at the next start. Raises: StoreLocked.
        """
        store = self._store
        with store.journal.alone():
            if (why := store.read(store.rollback_detector.refusal)) is not None:
                raise StoreLocked(why)
            made = self._write(make).result()
            journal = store.journal.read()
            if journal is not None and not journal.is_keyed:
                try:
                    journal = store.journal.append("keyed")
                except EdgeAgentError:
                    self._write(lambda db: keys.drop(db, made.key.id)).result()
                    raise
                n = journal.head.n
                self._write(lambda db: journal_progress.carried_out(db, journal, n)).result()
        return made

    def _act(self, act: Callable[[], T]) -> Future[T]:
        """Run an act of several steps on a thread of its own, then anchor it."""

        def run() -> T:
            done = act()
            self._publish()
            return done

        return self._acts.submit(run)

    def _publish(self, *, is_accepted: bool = False) -> None:
        """What was done stands in the journal: an anchor that cannot be written now does not undo it."""
        path = self._store.options.anchor
        if path is None:
            return
        try:
            audit_anchor.publish_head(
                self._store, audit.key_of(self._store.secret), path,
                is_restored=is_accepted, is_accepted=is_accepted,
            )  # fmt: skip
        except EdgeAgentError as exc:
            logger.warning("audit_not_anchored code=%s", exc.code)

    def _now(self, db: StoreConnection) -> int:
        return KeyClock(self._device).now_ms(db)

    def _audit(self, db: StoreConnection, actor: str, action: str, key_id: str) -> None:
        self._note(db, actor, action, f"key:{key_id}")

    def _note(self, db: StoreConnection, actor: str, action: str, what: str) -> None:
        key = audit.key_of(self._store.secret)
        audit.append(db, key, actor=actor, action=action, object=what)

    def _write(self, fn: Callable[[StoreConnection], T]) -> Future[T]:
        # Ending a key must work on a full disk, and audit may use its reserve.
        return self._store.write(fn, essential=True)


def _refuse_sealed(key: Key, may_be_sealed: bool, command: str) -> None:
    if key.is_break_glass and not may_be_sealed:
        raise Forbidden(
            f"Key {key.id} is sealed: on the device, `edgeagent keys {command} {key.id}`."
        )


def _numbers(journal: JournalContents) -> list[int]:
    return [entry.n for entry in journal.entries]


def _identity(path: str) -> object:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  a Path costs more than the call
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
