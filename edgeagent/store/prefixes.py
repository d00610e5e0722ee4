"""Computed prefixes of dialogues: which pieces of each are stored, and how they follow each other.

A piece holds the KV state of some tokens of a thread; with a `base`, those after the first `first` tokens
there. Its file is in `prefix_files.py`. All of this is a cache: a piece that does not fit, is torn or is
gone is computed again. Functions run inside `Database.write` or `read`.
"""

from __future__ import annotations

import itertools
import secrets
from array import array

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch
from edgeagent.store.sql import marks, scalar
from edgeagent.types.ids import new_id

MOST_PIECES = 512  # of one thread; later ones are not stored
_COLUMNS = (
    "id", "owner", "scope", "thread", "response_id", "fits", "base_id", "first", "tokens", "key",
    "n_bytes", "used_ms",
)  # fmt: skip


class PrefixPiece(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `tokens`: int32, the first at position `first`."""

    id: str
    owner: str
    scope: str
    thread: str
    response_id: str
    fits: str
    base_id: str | None
    first: int
    tokens: bytes
    key: bytes
    n_bytes: int
    used_ms: int


class PrefixChain(msgspec.Struct, frozen=True):
    """Consecutive pieces, and all their tokens."""

    pieces: list[PrefixPiece]
    tokens: array[int]

    def ends(self) -> list[int]:
        """The end position of each piece, which is where the next one begins."""
        return [*(piece.first for piece in self.pieces[1:]), len(self.tokens)]


def new_name() -> str:
    """A new id for a piece, also the name of its file."""
    return new_id("pfx")


def new_key() -> bytes:
    return secrets.token_bytes(32)


def of_thread(
    db: StoreConnection, owner: str, scope: str, thread: str, fits: str
) -> list[PrefixPiece]:
    """The usable pieces of a thread, oldest first."""
    rows = fetch(
        db,
        f"select {', '.join(_COLUMNS)} from prefix where thread = :thread and owner = :owner "
        "and scope = :scope and fits = :fits order by rowid",
        {"thread": thread, "owner": owner, "scope": scope, "fits": fits},
    )
    return [PrefixPiece(**row) for row in rows]


def chains(pieces: list[PrefixPiece]) -> dict[str, PrefixChain]:
    """The chain that ends with each piece, by piece id, in the order of the pieces. Pure."""
    found: dict[str, PrefixChain] = {}
    for piece in pieces:
        own = ids(piece.tokens)
        if piece.base_id is None:
            found[piece.id] = PrefixChain([piece], own)
        elif (base := found.get(piece.base_id)) is not None:
            found[piece.id] = PrefixChain([*base.pieces, piece], base.tokens[: piece.first] + own)
    return found


def best(found: dict[str, PrefixChain], tokens: array[int]) -> tuple[PrefixPiece | None, int]:
    """The piece up to which most of `tokens` is stored, and how many tokens that is. Pure."""
    piece, n_most = None, 0
    for chain in found.values():
        pairs = zip(chain.tokens, tokens, strict=False)
        n = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if n and n >= n_most:
            piece, n_most = chain.pieces[-1], n
    return piece, n_most


def ids(tokens: bytes) -> array[int]:
    """Token ids from their bytes: int32 [n]."""
    found = array("i")
    found.frombytes(tokens)
    return found


def insert(db: StoreConnection, piece: PrefixPiece) -> bool:
    """Store a piece. False: its response no longer exists."""
    found = db.execute(
        f"insert into prefix ({', '.join(_COLUMNS)}) select "
        f"{', '.join(':' + name for name in _COLUMNS)} where exists "
        "(select 1 from response where id = :response_id and owner = :owner)",
        msgspec.structs.asdict(piece),
    )
    return bool(found.rowcount)


def touch(db: StoreConnection, thread: str, now_ms: int) -> None:
    db.execute("update prefix set used_ms = ? where thread = ?", (now_ms, thread))


def forget_thread(db: StoreConnection, thread: str) -> None:
    db.execute("delete from prefix where thread = ?", (thread,))


def forget(db: StoreConnection, piece_ids: list[str]) -> None:
    db.execute(f"delete from prefix where id in ({marks(len(piece_ids))})", piece_ids)


def shrink(db: StoreConnection, most_bytes: int) -> int:
    """Delete the least recently used threads until the total size is within the limit. Returns how many."""
    n_gone = 0
    while int(scalar(db, "select coalesce(sum(n_bytes), 0) from prefix")) > most_bytes:
        oldest = scalar(
            db, "select thread from prefix group by thread order by max(used_ms) limit 1"
        )
        forget_thread(db, oldest)
        n_gone += 1
    return n_gone


def known(db: StoreConnection) -> set[str]:
    return {row[0] for row in db.execute("select id from prefix").fetchall()}


def totals(db: StoreConnection) -> tuple[int, int]:
    """The number of stored pieces, and their bytes."""
    row = db.execute("select count(*), coalesce(sum(n_bytes), 0) from prefix").fetchone()
    return int(row[0]), int(row[1])
