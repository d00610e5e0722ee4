"""Chunks of documents in vector stores, and the two searches over them. Functions run inside
`Database.write` or `read`.

Vectors are searched by sqlite-vec, in two steps: the signs of all vectors of a store (48 bytes each), then
the nearest `N_NEAR` as int8. What costs is decrypting pages: of 10,000 vectors of 384 numbers, float32 took
143 ms, int8 47 ms, signs and 200 of int8 11 ms with 98% of the same 50 results, by a reader with 2 MB of
cache; 3 ms with 16 MB (zen4, sqlite-vec 0.1.9, 2026-11-29). numpy needs them all in memory, and the daemon
has no numpy.
"""

from __future__ import annotations

import math
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
MAX_MATCHES = 4000  # chunks of all words of a search together
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
    """Chunks with some of the words, by bm25; words that are rare in these stores count more.

    FTS5 counts how rare a word is over all stores, those of other owners too. So each word is looked for on
    its own, and its share is weighed again by its counts here. Common words are left out where rarer ones
    were found: a search reads about `MAX_MATCHES` entries. Where there are no other stores, neither is
    needed: of 10,000 chunks words were found in 3.6 ms of processor time in place of 6.4 (zen4, 2026-11-30).
    """
    words = query_words(text)
    if not words:
        return []
    numbers = ", ".join(map(str, store_n))
    has_others = scalar(
        db, f"select exists (select 1 from vector_store where n not in ({numbers}))"
    )
    scope = f"scope : ({' OR '.join(_scope(n) for n in store_n)}) AND " if has_others else ""
    counted = "select coalesce(sum(n_chunks), 0) from vector_store_file"
    n_here = scalar(db, f"{counted} where store_n in ({numbers})")
    n_all = scalar(db, counted)
    values: dict[str, Any] = dict(only.values) if only is not None else {}
    behind = (
        f"and rowid in (select c.rowid from chunk c where c.file_n in ({_files(store_n, only)}))"
        if only
        else ""
    )
    parts: list[str] = []
    for word, n in _rarest(db, scope, words):
        n_word = _n_matches(db, f"plain : {word}") if has_others else n
        number = len(parts)
        values[f"weight{number}"] = _rarity(n_here, n) / _rarity(n_all, n_word)
        values[f"query{number}"] = f"{scope}plain : {word}"
        parts.append(
            f"select rowid, bm25(chunk_fts, 0.0, 1.0) * :weight{number} as value from chunk_fts "
            f"where chunk_fts match :query{number} {behind}"
        )
    if not parts:
        return []
    found = db.execute(
        # Materialized, because bm25 cannot be used inside an aggregate.
        f"with hits as materialized ({' union all '.join(parts)}) "
        "select rowid, sum(value) as value from hits group by rowid order by value, rowid limit :limit",
        values | {"limit": limit},
    ).fetchall()
    return [ChunkHit(*row) for row in found]


def _rarest(db: StoreConnection, scope: str, words: Sequence[str]) -> list[tuple[str, int]]:
    """The words that these stores have with the number of their chunks, rarest first, until there are enough
    of them."""
    counts = [(_n_matches(db, f"{scope}plain : {word}"), word) for word in words]
    chosen: list[tuple[str, int]] = []
    total = 0
    for n, word in sorted(pair for pair in counts if pair[0]):
        total += n
        if chosen and total > MAX_MATCHES:
            break
        chosen.append((word, n))
    return chosen


def _n_matches(db: StoreConnection, query: str) -> int:
    return int(scalar(db, "select count(*) from chunk_fts where chunk_fts match ?", (query,)))


def _rarity(n_all: int, n: int) -> float:
    """The inverse document frequency of FTS5's bm25."""
    return max(math.log(max(n_all - n + 0.5, 0.5) / (n + 0.5)), 1e-6)


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


def similarities(
    db: StoreConnection, store_n: Sequence[int], vector: StoredVector, chunks: Sequence[int]
) -> list[ChunkHit]:
    """The cosines of these chunks, as far as they are in the stores and have such a vector."""
    if not chunks:
        return []
    can_search_vectors(db)
    found = db.execute(
        "select v.chunk, 1 - vec_distance_cosine(vec_int8(v.vector), vec_int8(:scaled)) from chunk_vector v "
        f"join chunk_bits b on b.store_n in ({', '.join(map(str, store_n))}) and b.chunk = v.chunk "
        "where v.chunk in (select value from json_each(:chunks)) and length(v.vector) = length(:scaled)",
        {"scaled": vector.scaled, "chunks": msgspec.json.encode(list(chunks)).decode()},
    ).fetchall()
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


def query_words(text: str) -> list[str]:
    """The words to look for, each quoted for FTS5, so that it has no operators. Common ones only where there
    are no others."""
    cleaned = "".join(c if c.isalnum() or c == "_" else " " for c in text[:4000])
    words = list(dict.fromkeys(cleaned.lower().split()))
    rare = [word for word in words if word not in COMMON_WORDS]
    return [f'"{word}"' for word in (rare or words)[:MAX_WORDS]]


def _scope(store_n: int) -> str:
    return f"s{store_n}"


def _files(store_n: Sequence[int], only: AttributeFilter) -> str:
    """A query for the files of stores that a filter leaves."""
    numbers = ", ".join(map(str, store_n))
    return f"select f.n from vector_store_file f where f.store_n in ({numbers}) and {only.sql}"
