"""The keys of one store: makes, ends and lists them; each change is audited.

Looking up the key of a request is `key_lookup`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edgeagent.errors import EdgeAgentError, Forbidden, StoreLocked
from edgeagent.store import audit, audit_anchor, clock, journal_progress, keys
from edgeagent.store.clock import Clock, DeviceClock
from edgeagent.store.connection import StoreConnection
from edgeagent.store.database import Database
from edgeagent.store.journal import JournalContents
from edgeagent.store.key_expiry_clock import KeyClock
from edgeagent.store.key_lookup import KeyLookup
from edgeagent.store.key_record import Key, KeySpec, NewKey
from edgeagent.store.lazy_store import OptionalStore
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import ALL_SCOPES, Caller

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Keyring:
    """Any thread, except `caller`, `check_access` and `key_ids`: the event loop's only. `close` may be
    called twice; a given store stays open.

    A change and its audit row are written in one transaction. What must outlive the database is in the
    journal before the change is acknowledged. Without a given store (`store.enabled = false`) it opens the
    one at `path` if that exists, if its folder or `anchor_path` shows that it did, or as soon as another
    process makes keys there.
    """

    def __init__(
        self, store: Database | None, path: Path, open_store: Callable[[], Database],
        *, anchor_path: Path | None = None, device: Clock | None = None,
    ) -> None:  # fmt: skip
        self._optional = OptionalStore(store, path, open_store, anchor_path=anchor_path)
        self._device = device or DeviceClock()
        self._clock = KeyClock(self._device)
        self._lookup = KeyLookup(self._optional, self._clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keyring")

    @property
    def _store(self) -> Database:
        return self._optional.database

    @property
    def _exists(self) -> bool:
        return self._optional.exists

    def close(self) -> None:
        self._thread.shutdown()
        self._lookup.close()
        self._optional.close()

    # ---- looking up

    def check_access(self) -> str | None:
        """See `KeyLookup.check_access`."""
        return self._lookup.check_access()

    def caller(self, secret: str | None, *, is_exposed: bool) -> Caller | None:
        """See `KeyLookup.caller`."""
        return self._lookup.caller(secret, is_exposed=is_exposed)

    def key_ids(self, owner: str) -> list[str]:
        """See `KeyLookup.key_ids`."""
        return self._lookup.key_ids(owner)

    def is_any_made(self) -> bool:
        """Whether a key is needed also on loopback."""
        return self._exists and self._store.read(keys.is_any_made)

    def is_any_usable(self) -> bool:
        """Whether there is a live key that is not sealed."""
        return self._exists and self._store.read(
            lambda db: keys.is_any_usable(db, KeyClock(self._device).now_ms(db))
        )

    def all(self) -> list[Key]:
        return self._store.read(keys.all_keys) if self._exists else []

    def get(self, key_id: str) -> Key:
        """Raises: KeyNotFound."""
        return self._store.read(lambda db: keys.get(db, key_id))

    def now_ms(self) -> int:
        """The time by which keys expire, UTC in milliseconds."""
        return self._store.read(KeyClock(self._device).now_ms) if self._exists else now_ms()

    # ---- changing

    def create(self, spec: KeySpec, actor: str, secret: str | None = None) -> Future[NewKey]:
        """Make a key. `secret`: from `keys.new_secret`, if given. The future may raise InvalidParameter or
        StoreLocked."""

        def make(db: StoreConnection) -> NewKey:
            if not clock.floor_ms(db):
                KeyClock(self._device).keep(db)
            made = keys.create(db, spec, self._now(db), secret)
            action = "key.seal" if spec.is_break_glass else "key.create"
            self._audit(db, actor, action, made.key.id)
            return made

        return self._act(lambda: self._make(make))

    def revoke(self, key_id: str, actor: str, *, may_be_sealed: bool = True) -> Future[Key]:
        """End a key. The future may raise KeyNotFound; Forbidden for a sealed key unless `may_be_sealed`."""

        def act() -> Key:
            key = self._store.read(lambda db: keys.get(db, key_id))
            _refuse_sealed(key, may_be_sealed, "revoke")
            if key.revoked_ms is not None:
                return key
            journal = self._store.journal.append("revoke", key_id)

            def end(db: StoreConnection) -> Key:
                ended = keys.revoke(db, key_id, self._now(db))
                self._audit(db, actor, "key.revoke", key_id)
                journal_progress.mark_applied(db, journal, journal.head.n)
                return ended

            return self._write(end).result()

        return self._act(act)

    def rotate(
        self, key_id: str, actor: str, grace_s: float = 0, *, may_be_sealed: bool = True
    ) -> Future[NewKey]:
        """Replace a key by a new one; the old one lives `grace_s` longer.

        The future may raise KeyNotFound, InvalidParameter, or Forbidden for a sealed key unless
        `may_be_sealed`.
        """

        def act() -> NewKey:
            _refuse_sealed(
                self._store.read(lambda db: keys.get(db, key_id)), may_be_sealed, "rotate"
            )

            def replace(db: StoreConnection) -> NewKey:
                made = keys.rotate(db, key_id, self._now(db), int(grace_s * 1000))
                self._audit(db, actor, "key.rotate", f"{key_id}:{made.key.id}")
                return made

            made = self._make(replace)
            # An older copy of the database must not revive the old key.
            old = self._store.read(lambda db: keys.get(db, key_id))
            journal = (
                self._store.journal.append("revoke", key_id)
                if old.revoked_ms is not None
                else self._store.journal.append("expire", f"{key_id} {old.expires_ms}")
            )
            self._write(
                lambda db: journal_progress.mark_applied(db, journal, journal.head.n)
            ).result()
            return made

        return self._act(act)

    def forget(self, key_id: str, actor: str) -> Future[Key]:
        """Delete the record of a dead key. The future may raise KeyNotFound or InvalidParameter."""

        def drop(db: StoreConnection) -> Key:
            key = keys.forget(db, key_id, self._now(db))
            self._audit(db, actor, "key.forget", key_id)
            return key

        def act() -> Key:
            with self._store.journal.alone():
                if self._store.read(lambda db: keys.get(db, key_id)).is_live(self.now_ms()):
                    return self._write(drop).result()  # raises InvalidParameter
                journal = self._store.journal.append("revoke", key_id)
                if len(self._store.read(keys.all_keys)) == 1:
                    # Before the record goes: if we are killed in between, keys are still required.
                    journal = self._store.journal.append("open")
                dropped = self._write(drop).result()
                self._write(
                    lambda db: journal_progress.mark_applied(db, journal, *_numbers(journal))
                ).result()
                return dropped

        return self._act(act)

    def reset_access(self, actor: str, name: str, *, keep_keys: bool) -> Future[NewKey | None]:
        """Accept, at the device, that keys or the journal are lost.

        Ends every key unless `keep_keys`, and makes a new one with every scope unless a live one was kept.
        The result is None if a live key was kept, or if the store was not locked. The journal is written
        first, so that a kill in between leaves the daemon locked, never open.
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
                    journal_progress.mark_applied(db, journal, *_numbers(journal))
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

        return self._thread.submit(act)

    def accept_clock(self, actor: str) -> Future[int]:
        """Accept, at the device, the time of its clock: a later time that was trusted before is forgotten.

        Returns that earlier floor, UTC in milliseconds.
        """

        def accept(db: StoreConnection) -> int:
            before, now = clock.floor_ms(db), self._device.read().wall_ms
            clock.set_floor(db, now)
            self._note(db, actor, "clock.accept", f"from {before} to {now}")
            return before

        def act() -> int:
            before = self._write(accept).result()
            self._clock.forget()
            self._publish()
            return before

        return self._thread.submit(act)

    def is_shared(self, owner: str) -> bool:
        """Whether this owner has more than one key, dead ones included."""
        return len([key for key in self.all() if key.owner == owner]) > 1

    def note(self, caller: Caller, action: str, what: str) -> Future[None]:
        """Audit what a key has done."""
        return self._write(lambda db: self._note(db, caller.key_id, action, what))

    def note_read(self, caller: Caller, what: str) -> Future[None]:
        """Audit that a key has read its owner's stored data."""
        return self.note(caller, "data.read", what)

    def note_break_glass(self, caller: Caller, what: str) -> Future[None]:
        """Audit one use of a sealed key."""
        return self._write(lambda db: self._note(db, caller.key_id, "key.break_glass", what))

    def note_sent(self, key_id: str, what: str) -> Future[None]:
        """Audit that a request of a key is sent to an upstream."""
        return self._write(lambda db: self._note(db, key_id, "upstream.request", what))

    def note_altered_model(self, model_id: str) -> Future[None]:
        """Audit that a model was refused because its file is not the approved one."""
        return self._write(
            lambda db: self._note(db, "system", "model.altered", f"model:{model_id}")
        )

    def _make(self, make: Callable[[StoreConnection], NewKey]) -> NewKey:
        """Commit a new key, then record in the journal that keys are required, then acknowledge.

        With this order, a kill in between leaves a database that requires keys (the device can make another
        one), and the journal is brought up to date at the next start. Raises: StoreLocked.
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
                self._write(lambda db: journal_progress.mark_applied(db, journal, n)).result()
        return made

    def _act(self, act: Callable[[], T]) -> Future[T]:
        """Run a change of several steps on the keyring's thread, then anchor it."""

        def run() -> T:
            done = act()
            self._publish()
            return done

        return self._thread.submit(run)

    def _publish(self, *, is_accepted: bool = False) -> None:
        """Write the anchor. A failure does not undo the change, which is in the journal."""
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
        # Ending a key must work on a full disk, and the audit may use the disk reserve.
        return self._store.write(fn, essential=True)


def _refuse_sealed(key: Key, may_be_sealed: bool, command: str) -> None:
    if key.is_break_glass and not may_be_sealed:
        raise Forbidden(
            f"Key {key.id} is sealed: on the device, `edgeagent keys {command} {key.id}`."
        )


def _numbers(journal: JournalContents) -> list[int]:
    return [entry.n for entry in journal.entries]
