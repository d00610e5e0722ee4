"""Computed prefixes of dialogues: which pieces of each are stored, and how they follow each other.

Those of system prompts, which belong to no dialogue, are in `warm_prefixes.py`; both share files and limit.

A piece holds the KV state of some tokens of a thread; with a `base`, those after the first `first` tokens
there. Its file is in `prefix_files.py`. All of this is a cache: a piece that does not fit, is torn or is
gone is computed again. Functions run inside `Database.write` or `read`.
"""

from __future__ import annotations

import itertools
import secrets
from array import array
from typing import Generic, TypeVar

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch
from edgeagent.store.sql import marks
from edgeagent.types.ids import new_id

MOST_PIECES = 512  # of one thread; later ones are not stored
_COLUMNS = (
    "id", "owner", "scope", "thread", "response_id", "fits", "base_id", "first", "tokens", "key",
    "n_bytes", "used_ms",
)  # fmt: skip


class SealedState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of some tokens, in a file named `id` that only `key` opens.

    `tokens`: int32, the first at position `first`. `scope`: the API key whose requests may read it. `fits`: a
    digest of model file, settings of the KV cache and build of llama.cpp.
    """

    id: str
    owner: str
    scope: str
    fits: str
    first: int = 0
    tokens: bytes
    key: bytes
    n_bytes: int
    used_ms: int


class PrefixPiece(SealedState, frozen=True, kw_only=True):
    """A part of a thread's state, and the answer after which it was stored."""

    thread: str
    response_id: str
    base_id: str | None


State = TypeVar("State", bound=SealedState)


class PrefixChain(msgspec.Struct, Generic[State], frozen=True):
    """Consecutive pieces, and all their tokens."""

    pieces: list[State]
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


def chains(pieces: list[PrefixPiece]) -> dict[str, PrefixChain[PrefixPiece]]:
    """The chain that ends with each piece, by piece id, in the order of the pieces. Pure."""
    found: dict[str, PrefixChain[PrefixPiece]] = {}
    for piece in pieces:
        own = ids(piece.tokens)
        if piece.base_id is None:
            found[piece.id] = PrefixChain([piece], own)
        elif (base := found.get(piece.base_id)) is not None:
            found[piece.id] = PrefixChain([*base.pieces, piece], base.tokens[: piece.first] + own)
    return found


def best(
    found: dict[str, PrefixChain[PrefixPiece]], tokens: array[int]
) -> tuple[PrefixPiece | None, int]:
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


# All that shares the limit: threads, and prefixes of system prompts, each as one thing that goes whole.
_KEPT = """
    select owner, thread as name, 1 as is_thread, sum(n_bytes) as n_bytes, max(used_ms) as used_ms
        from prefix group by owner, thread
    union all select owner, id, 0, n_bytes, used_ms from warm_prefix
"""


def shrink(db: StoreConnection, most_bytes: int) -> int:
    """Delete what was not used for longest until the total size is within the limit. Returns how many.

    It is taken from the owner who has most, so that nobody can displace what others keep within an equal
    share.
    """
    n_gone = 0
    while totals(db)[1] > most_bytes:
        name, is_thread = db.execute(
            f"select name, is_thread from ({_KEPT}) where owner = (select owner from ({_KEPT}) "
            "group by owner order by sum(n_bytes) desc, owner limit 1) order by used_ms limit 1"
        ).fetchone()
        if is_thread:
            forget_thread(db, name)
        else:
            db.execute("delete from warm_prefix where id = ?", (name,))
        n_gone += 1
    return n_gone


def known(db: StoreConnection) -> set[str]:
    """The names of all files that have a row."""
    found = db.execute("select id from prefix union all select id from warm_prefix")
    return {row[0] for row in found.fetchall()}


def totals(db: StoreConnection) -> tuple[int, int]:
    """The number of stored files, and their bytes."""
    row = db.execute(
        "select count(*), coalesce(sum(n_bytes), 0) from "
        "(select n_bytes from prefix union all select n_bytes from warm_prefix)"
    ).fetchone()
    return int(row[0]), int(row[1])
