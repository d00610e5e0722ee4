"""A cache of keys for one connection, valid until anything is committed.

`PRAGMA data_version` changes with each commit by another connection of any process. It is read before the
values that are cached under it, so cached values are never older than it says. A key made or revoked
elsewhere counts at once, and a request in between costs one read of shared memory.
"""

from __future__ import annotations

from edgeagent.store import erasure_epochs, keys
from edgeagent.store.connection import StoreConnection
from edgeagent.store.key_record import Key
from edgeagent.store.sql import scalar

MOST_KEYS = 256


class KeyCache:
    """One thread, and a connection that does not write. Needs no transaction."""

    def __init__(self) -> None:
        self._db: StoreConnection | None = None  # the version is valid for one connection only
        self._version = 0
        self._keys: dict[bytes, Key] = {}
        self.newest_erasure = 0
        self.is_any_made = True

    def look(self, db: StoreConnection) -> None:
        """Clear the cache if anything was committed. Raises: SqliteError."""
        version = int(scalar(db, "PRAGMA data_version"))
        if db is self._db and version == self._version:
            return
        self._db = None  # if reading fails below, nothing is cached
        self._keys.clear()
        self.newest_erasure = erasure_epochs.newest(db)
        self.is_any_made = keys.is_any_made(db)
        self._db, self._version = db, version

    def find(self, db: StoreConnection, secret: str) -> Key | None:
        """The key with this secret, live or not; call `look` first. Unknown secrets are not cached, so that
        guesses take no memory."""
        digest = keys.digest_of(secret)
        known = self._keys.get(digest)
        if known is None:
            known = keys.find(db, secret)
            if known is not None:
                if len(self._keys) >= MOST_KEYS:
                    self._keys.clear()
                self._keys[digest] = known
        return known
