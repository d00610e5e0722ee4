"""API keys in the database: who may call, as which owner, for what. Functions over one connection; none
commits.

A secret is random and long enough for a single fast hash: only its SHA-256 is stored. Times are UTC in
milliseconds and come from the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from edgeagent.errors import InvalidParameter, KeyNotFound
from edgeagent.store.connection import StoreConnection
from edgeagent.store.key_record import COLUMNS, Key, KeySpec, NewKey, check, from_row, to_row

PREFIX = "ea_"
_SECRET = re.compile(r"ea_[A-Za-z0-9_-]{43}")
_NO_DIGEST = bytes(32)


def new_secret() -> str:
    """The prefix and 43 random characters: 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def create(conn: StoreConnection, spec: KeySpec, now_ms: int, secret: str | None = None) -> NewKey:
    """Create a key, with the given secret from `new_secret` or a new one. Raises: InvalidParameter."""
    check(spec, now_ms)
    secret = secret or new_secret()
    key = Key(
        id=f"key_{secrets.token_hex(12)}",
        name=spec.name,
        owner=spec.owner or f"own_{secrets.token_hex(8)}",
        hint=secret[-4:],
        scopes=spec.scopes,
        limits=spec.limits,
        tools=spec.tools,
        is_break_glass=spec.is_break_glass,
        created_ms=now_ms,
        expires_ms=spec.expires_ms,
        revoked_ms=None,
        replaced_by=None,
    )
    conn.execute(
        f"insert into key (digest, {COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (digest_of(secret), *to_row(key)),
    )
    return NewKey(key, secret)


def find(conn: StoreConnection, secret: str) -> Key | None:
    """The key with this secret, live or not. Takes the same time whether it is found or not."""
    digest = digest_of(secret)
    row = conn.execute(f"select digest, {COLUMNS} from key where digest = ?", (digest,)).fetchone()
    kept = bytes(row[0]) if row is not None else _NO_DIGEST
    is_same = hmac.compare_digest(kept, digest)
    if row is None or not is_same:
        return None
    return from_row(row[1:])


def looks_like_one(secret: str) -> bool:
    """Whether a text has the form of a secret; other texts are never looked up."""
    return _SECRET.fullmatch(secret) is not None


def get(conn: StoreConnection, key_id: str) -> Key:
    """Raises: KeyNotFound."""
    row = conn.execute(f"select {COLUMNS} from key where id = ?", (key_id,)).fetchone()
    if row is None:
        raise KeyNotFound(
            f"There is no key {key_id[:60]!r}: `edgeagent keys list` shows the ids.", param="id"
        )
    return from_row(row)


def all_keys(conn: StoreConnection) -> list[Key]:
    """Every key that has a record, oldest first."""
    rows = conn.execute(f"select {COLUMNS} from key order by created_ms, id").fetchall()
    return [from_row(row) for row in rows]


def is_any_made(conn: StoreConnection) -> bool:
    """Whether keys are required. Dead keys count: an expiring key must not open the daemon."""
    return conn.execute("select 1 from key limit 1").fetchone() is not None


def is_any_usable(conn: StoreConnection, now_ms: int) -> bool:
    """Whether there is a live key that is not sealed."""
    sql = (
        "select 1 from key where revoked_ms is null and is_break_glass = 0 "
        "and (expires_ms is null or expires_ms > ?) limit 1"
    )
    return conn.execute(sql, (now_ms,)).fetchone() is not None


def revoke(conn: StoreConnection, key_id: str, now_ms: int) -> Key:
    """End a key now; a key that has ended keeps its time. Raises: KeyNotFound."""
    get(conn, key_id)
    conn.execute(
        "update key set revoked_ms = ? where id = ? and revoked_ms is null", (now_ms, key_id)
    )
    return get(conn, key_id)


def rotate(conn: StoreConnection, key_id: str, now_ms: int, grace_ms: int = 0) -> NewKey:
    """A new key with the same owner, scopes, limits and lifetime; the old one lives `grace_ms` longer.

    Raises: KeyNotFound; InvalidParameter for a key that is not live.
    """
    old = get(conn, key_id)
    if not old.is_live(now_ms):
        raise InvalidParameter(
            f"Key {key_id} is {old.state(now_ms)}, only a live one can be rotated: make a new one.",
            param="id",
        )
    lifetime_ms = old.expires_ms - old.created_ms if old.expires_ms is not None else None
    made = create(
        conn,
        KeySpec(
            name=old.name,
            scopes=old.scopes,
            owner=old.owner,
            limits=old.limits,
            tools=old.tools,
            expires_ms=now_ms + lifetime_ms if lifetime_ms is not None else None,
            is_break_glass=old.is_break_glass,
        ),
        now_ms,
    )
    ends_ms = min(now_ms + grace_ms, old.expires_ms or now_ms + grace_ms)
    column = "expires_ms" if grace_ms > 0 else "revoked_ms"
    conn.execute(
        f"update key set replaced_by = ?, {column} = ? where id = ?", (made.key.id, ends_ms, key_id)
    )
    return made


def forget(conn: StoreConnection, key_id: str, now_ms: int) -> Key:
    """Delete the record of a dead key. Raises: KeyNotFound; InvalidParameter for a live one."""
    key = get(conn, key_id)
    if key.is_live(now_ms):
        raise InvalidParameter(
            f"Key {key_id} is live, only a dead one can be forgotten: revoke it first.", param="id"
        )
    conn.execute("update key set replaced_by = null where replaced_by = ?", (key_id,))
    conn.execute("delete from key where id = ?", (key_id,))
    return key


def drop(conn: StoreConnection, key_id: str) -> None:
    """Undo `create` for a key that was not handed out."""
    conn.execute("delete from key where id = ?", (key_id,))


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
