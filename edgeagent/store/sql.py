"""What the modules of the store need of a connection, so that they work over any that can execute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

Values = Sequence[Any] | dict[str, Any]


class Connection(Protocol):
    """A connection of sqlite3's shape, or `Tables` over one. Nothing here commits: the
    transaction is the caller's, which is how an audited change and its audit row stay together."""

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
    """Which start of the device this is: orders what a jumping clock cannot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
