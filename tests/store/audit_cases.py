"""What somebody with the database but without the audit's key may do to its rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from edgeagent.store import audit
from edgeagent.store.audit import AuditHead

MAC_KEY = b"k" * 32
Statements = list[tuple[str, tuple[Any, ...]]]

_CHANGES = {
    "utc_ms": "utc_ms + 1", "boot_id": "'c'", "actor": "actor || 'x'", "action": "'data.read'",
    "object": "'conversation:conv_other'", "digest": "coalesce(digest || '0', '')",
    "mac": "randomblob(32)",
}  # fmt: skip


def fill(conn: Any, n: int, start: int = 0) -> list[AuditHead]:
    """Add n rows and give the head after each."""
    conn.execute("begin")
    heads = [
        audit.append(
            conn, MAC_KEY, actor=f"key_{i % 5}", action="data.erase", utc_ms=1000 + i, boot="b",
            object=f"conversation:conv_{i}", digest=None if i % 3 else f"{i:064x}",
        )
        for i in range(start, start + n)
    ]  # fmt: skip
    conn.execute("commit")
    return heads


def edit(rng: random.Random, n: int) -> Statements:
    """One column of one row."""
    column = rng.choice(list(_CHANGES))
    sql = f"update audit set {column} = {_CHANGES[column]} where seq = ?"
    return [(sql, (rng.randint(1, n),))]


def delete(rng: random.Random, n: int) -> Statements:
    """A few rows that are not the last; every other time the gap is closed by numbering anew."""
    n_gone = rng.randint(1, 5)
    first = rng.randint(1, n - n_gone)
    statements: Statements = [
        ("delete from audit where seq between ? and ?", (first, first + n_gone - 1))
    ]
    if rng.random() < 0.5:  # negative numbers on the way keep them unique
        statements += [
            ("update audit set seq = -(seq - ?) where seq > ?", (n_gone, first)),
            ("update audit set seq = -seq where seq < 0", ()),
        ]
    return statements


def reorder(rng: random.Random, n: int) -> Statements:
    """Two rows change places."""
    a, b = rng.sample(range(1, n + 1), 2)
    return [
        ("update audit set seq = -1 where seq = ?", (a,)),
        ("update audit set seq = ? where seq = ?", (a, b)),
        ("update audit set seq = ? where seq = -1", (b,)),
    ]


def cut(rng: random.Random, n: int) -> Statements:
    """The last rows, perhaps all."""
    return [("delete from audit where seq > ?", (rng.randint(0, n - 1),))]


CASES: dict[str, Callable[[random.Random, int], Statements]] = {
    "edit": edit, "delete": delete, "reorder": reorder, "cut tail": cut,
}  # fmt: skip


def is_found(conn: Any, statements: Statements) -> bool:
    """Whether `verify` finds this damage, which is undone afterwards."""
    conn.execute("begin")
    try:
        for sql, values in statements:
            conn.execute(sql, values)
        return not audit.verify(conn, MAC_KEY).is_sound
    finally:
        conn.execute("rollback")
