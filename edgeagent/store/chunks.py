"""Chunks of documents in vector stores, and the two searches over them. Functions run inside
`Database.write` or `read`.

Vectors are searched by sqlite-vec, in two steps: the signs of all vectors of a store (48 bytes each), then
the nearest `N_NEAR` as int8. What costs is decrypting pages: of 10,000 vectors of 384 numbers, float32 took
143 ms, int8 47 ms, signs and 200 of int8 11 ms with 98% of the same 50 results, by a reader with 2 MB of
cache; 3 ms with 16 MB (zen4, sqlite-vec 0.1.9, 2026-11-29). numpy needs them all in memory, and the daemon
has no numpy.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from edgeagent.errors import StorageFailed
from edgeagent.store.attribute_filter import AttributeFilter
from edgeagent.store.connection import SqliteError, StoreConnection
from edgeagent.store.row_queries import fetch
from edgeagent.store.sql import marks, scalar
from edgeagent.types.common_words import COMMON_WORDS

N_NEAR = 200
MAX_WORDS = 24
CACHE_KIB = 8192  # of a connection that searches


class NewChunk(msgspec.Struct, frozen=True, kw_only=True):
    """`question_key` is set where there is an answer."""

    text: str
    headings: str
    page: int | None
    answer: str | None
    question_key: str | None = None

    @property
    def plain(self) -> str:
        """Its words for the index."""
        return "\n".join(filter(None, (self.headings, self.text, self.answer)))


class ChunkHit(NamedTuple):
    """A chunk by its number; `value` is bm25's rank, less is better, or the cosine of the vectors."""

    chunk: int
    value: float


class StoredVector(NamedTuple):
    """A vector as it is searched."""

    bits: bytes
    scaled: bytes


def stored_vector(data: bytes) -> StoredVector:
    """float32 little-endian [n_dimensions] as its signs, first number in the lowest bit, and as int8 of the
    same direction."""
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    bits = bytearray((len(values) + 7) // 8)
    for n, value in enumerate(values):
        if value > 0:
            bits[n >> 3] |= 1 << (n & 7)
    largest = max(map(abs, values), default=0.0) or 1.0
    factor = 127 / largest
    return StoredVector(
        bytes(bits), array("b", [round(value * factor) for value in values]).tobytes()
    )


def can_search_vectors(db: StoreConnection) -> None:
    """Load sqlite-vec into a connection, and give it a cache. Raises: StorageFailed without it."""
    if scalar(db, "select 1 from pragma_function_list where name = 'vec_distance_hamming'"):
        return
    import sqlite_vec

    try:
        db.conn.enable_load_extension(True)
        try:
            db.conn.load_extension(sqlite_vec.loadable_path())
        finally:
            db.conn.enable_load_extension(False)
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except (SqliteError, OSError) as exc:
        raise StorageFailed(
            f"sqlite-vec, which searches vectors, cannot be loaded ({exc}): install it again."
        ) from exc


# ---- writing


def add(db: StoreConnection, file_n: int, first: int, chunks: Sequence[NewChunk]) -> bool:
    """Add chunks of a file from a position on. False: the file is gone, or not open any more."""
    store_n = scalar(
        db,
        "select store_n from vector_store_file where n = ? and status = 'in_progress'",
        (file_n,),
    )
    if store_n is None:
        return False
    for position, chunk in enumerate(chunks, first):
        made = db.execute(
            "insert into chunk (file_n, position, page, headings, body, answer, question_key) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (
                file_n, position, chunk.page, chunk.headings, chunk.text, chunk.answer, chunk.question_key,
            ),
        )  # fmt: skip
        db.execute(
            "insert into chunk_fts (rowid, scope, plain) values (?, ?, ?)",
            (made.lastrowid, _scope(store_n), chunk.plain),
        )
    n_bytes = sum(len(chunk.plain.encode()) for chunk in chunks)
    db.execute(
        "update vector_store_file set n_chunks = n_chunks + ?, n_bytes = n_bytes + ? where n = ?",
        (len(chunks), n_bytes, file_n),
    )
    return True


def without_vector(
    db: StoreConnection, files: Sequence[int], limit: int
) -> list[tuple[int, int, str]]:
    """The next chunks of these files that have no vector: number, file, and the text that it is made of."""
    found = db.execute(
        "select c.rowid, c.file_n, c.headings, c.body from chunk c "
        f"where c.file_n in ({marks(len(files))}) and not exists "
        "(select 1 from chunk_vector v where v.chunk = c.rowid) order by c.file_n, c.position limit ?",
        (*files, limit),
    ).fetchall()
    return [
        (number, file_n, f"{headings}\n{body}" if headings else body)
        for number, file_n, headings, body in found
    ]


def add_vectors(
    db: StoreConnection, store_n: int, vectors: Iterable[tuple[int, int, StoredVector]]
) -> None:
    """Add the vectors of chunks that still exist: number, file, vector."""
    for number, file_n, vector in vectors:
        made = db.execute(
            "insert or ignore into chunk_vector select rowid, ? from chunk where rowid = ? and file_n = ?",
            (vector.scaled, number, file_n),
        )
        if made.rowcount:
            db.execute(
                "insert into chunk_bits values (?, ?, ?, ?)", (store_n, number, file_n, vector.bits)
            )


# ---- searching


def by_words(
    db: StoreConnection, store_n: Sequence[int], text: str, limit: int,
    only: AttributeFilter | None = None,
) -> list[ChunkHit]:  # fmt: skip
    """Chunks with some of the words, by bm25; rare words count more."""
    query = matching(text)
    if query is None:
        return []
    scopes = " OR ".join(_scope(n) for n in store_n)
    behind, values = "", {}
    if only is not None:
        behind = f"and rowid in (select c.rowid from chunk c where c.file_n in ({_files(store_n, only)}))"
        values = only.values
    found = db.execute(
        "select rowid, bm25(chunk_fts, 0.0, 1.0) as value from chunk_fts where chunk_fts match :query "
        f"{behind} order by value limit :limit",
        values | {"query": f"scope : ({scopes}) AND plain : ({query})", "limit": limit},
    ).fetchall()
    return [ChunkHit(*row) for row in found]


def by_vector(
    db: StoreConnection, store_n: Sequence[int], vector: StoredVector, limit: int,
    only: AttributeFilter | None = None,
) -> list[ChunkHit]:  # fmt: skip
    """Chunks with the nearest vectors, by cosine. Vectors of another length are left out."""
    can_search_vectors(db)
    behind, values = "", {}
    if only is not None:
        behind, values = f"and b.file_n in ({_files(store_n, only)})", only.values
    found = db.execute(
        "with near as (select b.chunk from chunk_bits b "
        f"where b.store_n in ({', '.join(map(str, store_n))}) and length(b.bits) = length(:bits) {behind} "
        "order by vec_distance_hamming(vec_bit(b.bits), vec_bit(:bits)) limit :near) "
        "select near.chunk, 1 - vec_distance_cosine(vec_int8(v.vector), vec_int8(:scaled)) as value "
        "from near join chunk_vector v on v.chunk = near.chunk "
        "where length(v.vector) = length(:scaled) order by value desc limit :limit",
        values | {
            "bits": vector.bits, "scaled": vector.scaled, "near": max(N_NEAR, 4 * limit), "limit": limit,
        },
    ).fetchall()  # fmt: skip
    return [ChunkHit(*row) for row in found]


def by_question(
    db: StoreConnection, store_n: Sequence[int], question_key: str, limit: int = 4
) -> list[int]:
    """Chunks whose question is the same but for case and marks."""
    found = db.execute(
        "select c.rowid from chunk c join vector_store_file f on f.n = c.file_n "
        f"where c.question_key = ? and f.store_n in ({marks(len(store_n))}) order by c.rowid limit ?",
        (question_key, *store_n, limit),
    ).fetchall()
    return [row[0] for row in found]


def contents(db: StoreConnection, owner: str, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """This owner's chunks with the name and the attributes of their documents, by number."""
    rows = fetch(
        db,
        "select c.rowid as chunk, c.headings, c.body, c.answer, c.page, c.position, f.document_id, "
        "f.attributes, d.name, s.id as store_id from chunk c join vector_store_file f on f.n = c.file_n "
        "join vector_store s on s.n = f.store_n join document d on d.id = f.document_id "
        "where c.rowid in (select value from json_each(:numbers)) and s.owner = :owner "
        "and d.owner = :owner",
        {"numbers": msgspec.json.encode(list(numbers)).decode(), "owner": owner},
    )
    return {row["chunk"]: row for row in rows}


def of_file(
    db: StoreConnection, file_n: int, first: int, limit: int
) -> list[tuple[str, str, str | None]]:
    """Chunks of a file in order: headings, text, answer."""
    found = db.execute(
        "select headings, body, answer from chunk where file_n = ? and position >= ? "
        "order by position limit ?",
        (file_n, first, limit),
    ).fetchall()
    return [tuple(row) for row in found]


def matching(text: str) -> str | None:
    """An FTS5 query for some of the words, each quoted, so that it has no operators. None without words."""
    cleaned = "".join(c if c.isalnum() or c == "_" else " " for c in text[:4000])
    words = list(dict.fromkeys(cleaned.split()))
    rare = [word for word in words if word.lower() not in COMMON_WORDS]
    chosen = (rare or words)[:MAX_WORDS]
    return " OR ".join(f'"{word}"' for word in chosen) or None


def _scope(store_n: int) -> str:
    return f"s{store_n}"


def _files(store_n: Sequence[int], only: AttributeFilter) -> str:
    """A query for the files of stores that a filter leaves."""
    numbers = ", ".join(map(str, store_n))
    return f"select f.n from vector_store_file f where f.store_n in ({numbers}) and {only.sql}"
