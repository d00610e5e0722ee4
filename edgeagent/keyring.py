"""The keys of one store: who a secret belongs to, and making and ending keys, each act audited.

Looking up happens on the event loop with a connection of its own, for every request: a key made or
revoked by another process counts at once. It takes 60 us (2-core x86-64 VM, 2026-11).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from edgeagent.errors import Forbidden
from edgeagent.store import keys
from edgeagent.store.connection import Tables, connect
from edgeagent.store.database import Database
from edgeagent.store.key_record import Key, KeySpec, NewKey
from edgeagent.store.reader import Readers
from edgeagent.types import LOCAL, Caller

T = TypeVar("T")

Audit = Callable[[Tables, str, str, str], object]  # connection, actor, action, object


def unaudited(_db: Tables, _actor: str, _action: str, _object: str) -> None:
    """Where no audit is kept."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Keyring:
    """Writes from any thread, `caller` from one. `close` may be called twice; the store stays open.

    What it writes is one closure with its audit row: both are on the disk, or neither.
    """

    def __init__(self, store: Database, audit: Audit = unaudited) -> None:
        self._store = store
        self._audit = audit
        path, secret = store.files.database, store.secret
        raw = secret.raw if secret is not None else None
        # Not the store's readers: a long export there would hold up the event loop.
        self._reader = Readers(lambda: connect(path, raw, role="reader"), path, n_readers=1)

    def close(self) -> None:
        self._reader.close()

    # ---- looking up

    def caller(self, secret: str | None, *, is_exposed: bool) -> Caller | None:
        """Who calls: the owner of the key; without keys, on an address that is not exposed, whoever is
        on this machine; else nobody."""

        def look(db: Tables) -> Caller | None:
            if not is_exposed and not keys.is_any_made(db):
                return LOCAL
            found = keys.find(db, secret, now_ms()) if secret is not None else None
            return found.caller() if found is not None else None

        return self._reader.read(look)

    def is_any_made(self) -> bool:
        """Whether a key is needed also on loopback."""
        return self._store.read(keys.is_any_made)

    def is_any_usable(self) -> bool:
        """Whether somebody could call with a key: a live one that is not sealed."""
        return self._store.read(lambda db: keys.is_any_usable(db, now_ms()))

    def all(self) -> list[Key]:
        return self._store.read(keys.all_keys)

    def get(self, key_id: str) -> Key:
        """Raises: KeyNotFound."""
        return self._store.read(lambda db: keys.get(db, key_id))

    # ---- changing

    def create(self, spec: KeySpec, actor: str) -> Future[NewKey]:
        """In the future: InvalidParameter."""

        def make(db: Tables) -> NewKey:
            made = keys.create(db, spec, now_ms())
            action = "key.create.break_glass" if spec.is_break_glass else "key.create"
            self._audit(db, actor, action, made.key.id)
            return made

        return self._write(make)

    def revoke(self, key_id: str, actor: str) -> Future[Key]:
        """In the future: KeyNotFound."""

        def end(db: Tables) -> Key:
            key = keys.revoke(db, key_id, now_ms())
            self._audit(db, actor, "key.revoke", key_id)
            return key

        return self._write(end)

    def rotate(
        self, key_id: str, actor: str, grace_s: float = 0, *, may_be_sealed: bool = True
    ) -> Future[NewKey]:
        """In the future: KeyNotFound, InvalidParameter; Forbidden for a sealed key that may not be."""

        def replace(db: Tables) -> NewKey:
            if not may_be_sealed and keys.get(db, key_id).is_break_glass:
                raise Forbidden(
                    f"Key {key_id} is sealed: on the device, `edgeagent keys rotate {key_id}`."
                )
            made = keys.rotate(db, key_id, now_ms(), int(grace_s * 1000))
            self._audit(db, actor, "key.rotate", f"{key_id} {made.key.id}")
            return made

        return self._write(replace)

    def forget(self, key_id: str, actor: str) -> Future[Key]:
        """In the future: KeyNotFound, InvalidParameter."""

        def drop(db: Tables) -> Key:
            key = keys.forget(db, key_id, now_ms())
            self._audit(db, actor, "key.forget", key_id)
            return key

        return self._write(drop)

    def note_break_glass(self, caller: Caller, what: str) -> Future[None]:
        """Audit one use of a sealed key."""
        return self._write(
            lambda db: _none(self._audit(db, caller.key_id, "key.break_glass", what))
        )

    def _write(self, fn: Callable[[Tables], T]) -> Future[T]:
        # Ending a key must work on a full disk, and audit may use its reserve.
        return self._store.write(fn, essential=True)


def _none(_value: object) -> None:
    return None
