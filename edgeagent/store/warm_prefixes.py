"""Computed prefixes of system prompts and tools: one row for each, by API key, model and digest of the text.

The state is in a file beside those of dialogues (`prefix_files.py`). A row belongs to the owner whose key
sent the text, and only that key reads it. Functions run inside `Database.write` or `read`.
"""

from __future__ import annotations

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.prefixes import SealedState
from edgeagent.store.row_queries import fetch
from edgeagent.store.sql import marks

# A key that is revoked leaves nothing behind that nobody could use.
TABLES = """
create table warm_prefix (
    id text primary key,
    owner text not null,
    scope text not null,                -- the API key whose requests may read it
    model text not null,
    digest blob not null,               -- SHA-256 of system messages, tools and template variables
    fits text not null,                 -- digest of model file, context and llama.cpp
    tokens blob not null,               -- int32, little-endian
    key blob not null,                  -- of the file
    n_bytes integer not null,           -- of the file
    prefill_tok_s real not null,        -- what computing it anew was measured to run at
    made_ms integer not null,
    used_ms integer not null,
    unique (scope, model, digest)
) strict;

create trigger warm_prefix_of_key after update of revoked_ms on key when new.revoked_ms is not null begin
    delete from warm_prefix where scope = new.id;
end;
"""

_COLUMNS = (
    "id", "owner", "scope", "model", "digest", "fits", "tokens", "key", "n_bytes", "prefill_tok_s", "made_ms",
    "used_ms",
)  # fmt: skip


class WarmPrefix(SealedState, frozen=True, kw_only=True):
    """One row. `prefill_tok_s`: tokens a second, as measured when it was stored."""

    model: str
    digest: bytes
    prefill_tok_s: float
    made_ms: int


class WarmEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a row in memory."""

    id: str
    owner: str
    scope: str
    model: str
    digest: bytes
    fits: str
    n_tokens: int
    prefill_tok_s: float
    used_ms: int


def entries(db: StoreConnection) -> list[WarmEntry]:
    """All rows, oldest first, without tokens and keys."""
    rows = fetch(
        db,
        "select id, owner, scope, model, digest, fits, length(tokens) / 4 as n_tokens, prefill_tok_s, "
        "used_ms from warm_prefix order by rowid",
        {},
    )
    return [WarmEntry(**row) for row in rows]


def find(db: StoreConnection, prefix_id: str) -> WarmPrefix | None:
    columns = ", ".join(_COLUMNS)
    rows = fetch(db, f"select {columns} from warm_prefix where id = :id", {"id": prefix_id})
    return WarmPrefix(**rows[0]) if rows else None


def put(db: StoreConnection, prefix: WarmPrefix) -> None:
    """Store a row in place of an older one for the same text."""
    db.execute(
        f"insert or replace into warm_prefix ({', '.join(_COLUMNS)}) "
        f"values ({', '.join(':' + name for name in _COLUMNS)})",
        {name: getattr(prefix, name) for name in _COLUMNS},
    )


def touch(db: StoreConnection, prefix_id: str, now_ms: int) -> None:
    db.execute("update warm_prefix set used_ms = ? where id = ?", (now_ms, prefix_id))


def forget(db: StoreConnection, prefix_ids: list[str]) -> None:
    db.execute(f"delete from warm_prefix where id in ({marks(len(prefix_ids))})", prefix_ids)


def forget_owner(db: StoreConnection, owner: str | None) -> int:
    """Delete the rows of an owner (None: of all). Returns how many."""
    found = db.execute(
        "delete from warm_prefix where :owner is null or owner = :owner", {"owner": owner}
    )
    return int(found.rowcount)
