"""Who a request's key belongs to, and whether the store may be served at all.

Looking up happens on the event loop, for every request, with a connection of its own: a key that another
process makes or revokes counts at once. A lookup takes 11 us, without keys 9 us (best of many short runs,
2-core x86-64 VM, 2026-11), and longer after a commit, when the key is read again (store/key_cache.py).
"""

from __future__ import annotations

import logging
import os
import time

from edgeagent.errors import StoreLocked
from edgeagent.store import clock, erasure_epochs, keys
from edgeagent.store.connection import StoreConnection, connect
from edgeagent.store.key_cache import KeyCache
from edgeagent.store.key_expiry_clock import KeyClock
from edgeagent.store.lazy_store import OptionalStore
from edgeagent.store.readers import Readers
from edgeagent.types.caller import LOCAL, Caller

logger = logging.getLogger(__name__)

LOCK_CHECK_S = 1.0  # how often a locked store is checked again


class KeyLookup:
    """One thread only, that of the event loop. `close` may be called twice."""

    def __init__(self, store: OptionalStore, clock: KeyClock) -> None:
        self._store = store
        self._clock = clock
        self._reader: Readers | None = None
        self._cache = KeyCache()
        self._why_locked: str | None = None
        self._checked_s = float("-inf")
        self._journal_seen: object = None
        self._journal_file = str(store.path.parent / "journal")  # looked at for each request

    def check_access(self) -> str | None:
        """Why nothing may be served, or None. Reads the files and keeps the answer for `caller`."""
        if not self._store.exists:
            return None
        before = self._why_locked
        self._journal_seen = _identity(self._journal_file)
        self._why_locked = self._own_reader().read(self._store.database.rollback_detector.refusal)
        self._checked_s = time.monotonic()
        if self._why_locked != before:
            if self._why_locked is not None:
                logger.error("store_locked reason=%r", self._why_locked)
            else:
                logger.warning("store_unlocked")
        return self._why_locked

    def caller(self, secret: str | None, *, is_exposed: bool) -> Caller | None:
        """The owner of the key; without any keys, on an address that is not exposed, whoever is on this
        machine; otherwise None. Records for this request which erasures it has seen
        (store/erasure_epochs.py).

        Raises: StoreLocked while the store may not be served.
        """
        if not self._store.exists:
            return None if is_exposed else LOCAL
        self._refuse_locked()

        cache = self._cache

        def look(db: StoreConnection) -> tuple[Caller | None, bool]:
            cache.look(db)
            erasure_epochs.SEEN.set(cache.newest_erasure)
            if not is_exposed and not cache.is_any_made:
                return LOCAL, False
            found = cache.find(db, secret) if secret is not None else None
            if found is None or found.revoked_ms is not None:
                return None, False
            if found.expires_ms is None or self._clock.now_ms(db) < found.expires_ms:
                return found.caller(), False
            return None, clock.floor_ms(db) < found.expires_ms

        caller, has_expired = self._own_reader().read(look, in_snapshot=False)
        if has_expired:  # it stays expired, even if the clock is set back
            self._store.database.write(self._clock.keep, essential=True)
        return caller

    def key_ids(self, owner: str) -> list[str]:
        """The key ids with which this owner's requests arrive."""
        known = self._own_reader().read(keys.all_keys) if self._store.exists else []
        made = [key.id for key in known if key.owner == owner]
        return [*made, LOCAL.key_id] if owner == LOCAL.owner else made

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _refuse_locked(self) -> None:
        """Raises: StoreLocked. Checks again when the journal has changed, and every second while locked."""
        is_due = self._checked_s == float("-inf") or (
            self._why_locked is not None and time.monotonic() - self._checked_s > LOCK_CHECK_S
        )
        if is_due or self._journal_seen != _identity(self._journal_file):
            self.check_access()
        if self._why_locked is not None:
            raise StoreLocked(self._why_locked)

    def _own_reader(self) -> Readers:
        # Not the store's readers: a long export there would hold up the event loop.
        if self._reader is None:
            path, secret = self._store.database.files.database, self._store.database.secret
            raw = secret.raw if secret is not None else None
            self._reader = Readers(lambda: connect(path, raw, role="reader"), path, n_readers=1)
        return self._reader


def _identity(path: str) -> object:
    """A value that changes when the file is written or replaced; None where there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  a Path costs more than the call
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
