"""What models have computed of dialogues: which pieces there are of each, and what they follow.

A piece holds the state of some tokens of a thread; with a `base` those that come after the first `first`
tokens there. Its file is in `prefix_files.py`. Nothing here is lasting: a piece that does not fit, is
torn or has gone is computed anew. Functions run inside `Database.write` or `read`.
"""

from __future__ import annotations

import itertools
import secrets
from array import array

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.rows import fetch
from edgeagent.store.sql import marks, scalar
from edgeagent.types.ids import new_id

MOST_PIECES = 512  # of one thread; what comes later is not kept
_COLUMNS = (
    "id", "owner", "scope", "thread", "response_id", "fits", "base_id", "first", "tokens", "key",
    "n_bytes", "used_ms",
)  # fmt: skip


class PrefixPiece(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `tokens`: int32, those from position `first` on."""

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
    """Pieces that follow each other, and all their tokens together."""

    pieces: list[PrefixPiece]
    tokens: array[int]

    def ends(self) -> list[int]:
        """Up to which position each piece counts: where the next one begins."""
        return [*(piece.first for piece in self.pieces[1:]), len(self.tokens)]


def new_name() -> str:
    """An id for a piece, and the name of its file."""
    return new_id("pfx")


def new_key() -> bytes:
    return secrets.token_bytes(32)


def of_thread(
    db: StoreConnection, owner: str, scope: str, thread: str, fits: str
) -> list[PrefixPiece]:
    """The pieces of a thread that may be used, the oldest first."""
    rows = fetch(
        db,
        f"select {', '.join(_COLUMNS)} from prefix where thread = :thread and owner = :owner "
        "and scope = :scope and fits = :fits order by rowid",
        {"thread": thread, "owner": owner, "scope": scope, "fits": fits},
    )
    return [PrefixPiece(**row) for row in rows]


def chains(pieces: list[PrefixPiece]) -> dict[str, PrefixChain]:
    """The chain that ends with each piece, by its id, in the order of the pieces. Pure."""
    found: dict[str, PrefixChain] = {}
    for piece in pieces:
        own = ids(piece.tokens)
        if piece.base_id is None:
            found[piece.id] = PrefixChain([piece], own)
        elif (base := found.get(piece.base_id)) is not None:
            found[piece.id] = PrefixChain([*base.pieces, piece], base.tokens[: piece.first] + own)
    return found


def best(found: dict[str, PrefixChain], tokens: array[int]) -> tuple[PrefixPiece | None, int]:
    """The piece after which most of `tokens` is kept already, and how many that are. Pure."""
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
    """Keep a piece. False: its response is not there (any more)."""
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
    """Drop the threads that have not been used for longest until the rest is small enough. Gives how
    many went."""
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
    """How many pieces are kept, and their bytes."""
    row = db.execute("select count(*), coalesce(sum(n_bytes), 0) from prefix").fetchone()
    return int(row[0]), int(row[1])
