"""SQL helpers that work over any connection that can execute, ours or `sqlite3`'s."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

Values = Sequence[Any] | dict[str, Any]


class Connection(Protocol):
    """The interface of a `sqlite3` connection, or of `StoreConnection`. Nothing here commits: the
    transaction is the caller's, so an audited change and its audit row stay together."""

    def execute(self, sql: str, parameters: Values = ..., /) -> Any: ...


def scalar(conn: Connection, sql: str, values: Values = ()) -> Any:
    """The first column of the first row, or None."""
    row = conn.execute(sql, values).fetchone()
    return None if row is None else row[0]


def marks(n: int) -> str:
    """`?, ?, ?` for n bound values."""
    return ", ".join("?" * n)


def now_ms() -> int:
    """UTC in milliseconds by the device's clock, which may be wrong."""
    return time.time_ns() // 1_000_000


@cache
def boot_id() -> str:
    """Identifies this boot of the device: orders events where the clock has jumped."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
