"""A store that may not exist: with `store.enabled = false` it is opened once another process makes keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeagent.store.database import Database


class OptionalStore:
    """The given database, or the one at `path`, opened at first use. `close` may be called twice.

    `anchor_path`: the anchor of the audit, which also tells that there was a store.
    """

    def __init__(
        self, given: Database | None, path: Path, open_store: Callable[[], Database],
        *, anchor_path: Path | None = None,
    ) -> None:  # fmt: skip
        self._given = given
        self._own: Database | None = None
        self.path = path
        self._open_store = open_store
        self._traces = (path.parent / "journal", path.parent / "seal.json", anchor_path)

    @property
    def exists(self) -> bool:
        """Whether there is a store, or traces of an earlier one."""
        if self._given is not None or self._own is not None or self.path.exists():
            return True
        return any(each is not None and each.exists() for each in self._traces)

    @property
    def database(self) -> Database:
        """Raises: KeyUnusable, StoreUnusable, StorageFull, StorageFailed where it cannot be opened."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = self._open_store()
        return self._own

    def close(self) -> None:
        """Close what was opened here; a given database stays open."""
        if self._own is not None:
            self._own.close()
