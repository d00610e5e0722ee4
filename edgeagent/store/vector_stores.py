"""Vector stores and the documents in them. Functions run inside `Database.write` or `read`.

    file in a store: in_progress -> completed
                          |--> failed: it cannot be parsed
                          `--> cancelled: with its batch

A store that is being deleted (`is_deleting`) is not shown; its chunks go in small steps before it does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeagent.errors import RateLimited
from edgeagent.store import row_deletion
from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged, subject_of
from edgeagent.store.sql import marks, scalar
from edgeagent.types.list_pages import Page, RowPage

FULL_RETRY_S = 60.0
DAY_MS = 86_400_000
CHUNKS_AT_ONCE = 200


class NewStore(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    owner: str
    name: str
    description: str | None = None
    metadata: dict[str, str] = {}
    expires_days: int | None = None


class NewStoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """A document that a store takes. `sizes`: largest chunk and overlap, in tokens."""

    id: str
    document_id: str
    attributes: dict[str, Any] = {}
    sizes: tuple[int, int]
    batch_id: str | None = None


class OpenFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is being indexed."""

    n: int
    owner: str
    document_id: str
    name: str
    is_parsed: bool
    n_chunks: int
    sizes: tuple[int, int]
    store_n: int
    model: str | None


# ---- stores


def add(db: StoreConnection, store: NewStore, max_stores: int, *, now_ms: int) -> None:
    """Raises: RateLimited beyond the bound of the owner."""
    n_stores = scalar(db, "select count(*) from vector_store where owner = ?", (store.owner,))
    if n_stores >= max_stores:
        raise RateLimited(
            f"This owner has {n_stores} vector stores, at most {max_stores} are kept: delete some, or raise "
            "knowledge.max_stores.",
            retry_after_s=FULL_RETRY_S,
        )
    db.execute(
        "insert into vector_store (id, owner, subject, name, description, metadata, expires_days, "
        "created_ms, used_ms) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            store.id, store.owner, subject_of(store.metadata), store.name, store.description,
            json.dumps(store.metadata, ensure_ascii=False), store.expires_days, now_ms, now_ms,
        ),
    )  # fmt: skip


def get(
    db: StoreConnection, owner: str, store_id: str, *, with_counts: bool = True
) -> dict[str, Any] | None:
    """A store, with the counts of its files by status."""
    rows = fetch(
        db,
        "select * from vector_store where id = :id and owner = :owner and not is_deleting",
        {"id": store_id, "owner": owner},
    )
    if rows and with_counts:
        _counted(db, rows)
    return rows[0] if rows else None


def listed(db: StoreConnection, owner: str, page: Page) -> RowPage:
    found = paged(
        db, "vector_store", "owner = :owner and not is_deleting", {"owner": owner}, page,
        order="created_ms",
    )  # fmt: skip
    return RowPage(_counted(db, found.rows), found.has_more)


def change(db: StoreConnection, owner: str, store_id: str, fields: dict[str, Any]) -> bool:
    """Replace name, description, metadata (with its subject) or expires_days."""
    values = dict(fields)
    if "metadata" in values:
        values["subject"] = subject_of(values["metadata"])
        values["metadata"] = json.dumps(values["metadata"], ensure_ascii=False)
    columns = ", ".join(f"{name} = :{name}" for name in values) or "name = name"
    done = db.execute(
        f"update vector_store set {columns} where id = :id and owner = :owner and not is_deleting",
        values | {"id": store_id, "owner": owner},
    )
    return bool(done.rowcount)


def touch(db: StoreConnection, store_n: Sequence[int], *, now_ms: int) -> None:
    """Note that stores were used."""
    sql = f"update vector_store set used_ms = ? where n in ({marks(len(store_n))})"
    db.execute(sql, (now_ms, *store_n))


def expired(db: StoreConnection, *, now_ms: int) -> list[tuple[str, str]]:
    """Owner and id of the stores whose time is over, or whose deletion was interrupted."""
    found = db.execute(
        f"""select owner, id from vector_store where is_deleting or (expires_days is not null
        and used_ms + expires_days * {DAY_MS} < ? and not is_held)""",
        (now_ms,),
    ).fetchall()
    return [tuple(row) for row in found]


def begin_deletion(db: StoreConnection, owner: str, store_id: str) -> None:
    """Show a store no more."""
    db.execute(
        "update vector_store set is_deleting = 1 where id = ? and owner = ? and not is_held",
        (store_id, owner),
    )


def delete_some_chunks(
    db: StoreConnection, column: str, value: Any, status: str | None = None
) -> bool:
    """Delete some chunks of a store (`store_n`), of a file in one (`n`), of a document (`document_id`) or of
    the files of a batch (`batch_id`) with a status. False: there are none."""
    done = db.execute(
        "delete from chunk where rowid in (select c.rowid from chunk c join vector_store_file f "
        f"on f.n = c.file_n where f.{column} = ? and (? is null or f.status = ?) "
        f"limit {CHUNKS_AT_ONCE})",
        (value, status, status),
    )
    if done.rowcount:
        row_deletion.mark(db)
    return bool(done.rowcount)


def _counted(db: StoreConnection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        row["counts"] = counts(db, "store_n", row["n"])
        row["n_bytes"] = scalar(
            db,
            "select coalesce(sum(n_bytes), 0) from vector_store_file where store_n = ?",
            (row["n"],),
        )
    return rows


def counts(db: StoreConnection, column: str, value: Any) -> dict[str, int]:
    """Files by status, of a store (`store_n`) or a batch (`batch_id`)."""
    found = db.execute(
        f"select status, count(*) from vector_store_file where {column} = ? group by status",
        (value,),
    ).fetchall()
    return dict(found)


# ---- files in stores


def add_files(
    db: StoreConnection, owner: str, store_n: int, files: Sequence[NewStoreFile], max_files: int,
    *, now_ms: int,
) -> list[str]:  # fmt: skip
    """Take documents into a store. Returns the documents that the owner does not have; a document that the
    store has already keeps its chunks, unless they have other sizes. Raises: RateLimited."""
    n_files = scalar(db, "select count(*) from vector_store_file where store_n = ?", (store_n,))
    if n_files + len(files) > max_files:
        raise RateLimited(
            f"The vector store has {n_files} files and {len(files)} come, at most {max_files} are kept: use "
            "another store, or raise knowledge.max_files.",
            retry_after_s=FULL_RETRY_S,
        )
    missing = []
    for file in files:
        known = scalar(
            db,
            "select 1 from document where id = ? and owner = ? and is_complete",
            (file.document_id, owner),
        )
        if known is None:
            missing.append(file.document_id)
            continue
        attributes = json.dumps(file.attributes, ensure_ascii=False)
        place = (store_n, file.document_id)
        db.execute(
            "delete from vector_store_file where store_n = ? and document_id = ? "
            "and (status in ('failed', 'cancelled') or max_tokens != ? or overlap_tokens != ?)",
            (*place, *file.sizes),
        )
        db.execute(
            "insert into vector_store_file (id, owner, store_n, document_id, batch_id, status, attributes, "
            "max_tokens, overlap_tokens, created_ms) values (?, ?, ?, ?, ?, 'in_progress', ?, ?, ?, ?) "
            "on conflict (store_n, document_id) do update set attributes = excluded.attributes, "
            "batch_id = excluded.batch_id",
            (file.id, owner, *place, file.batch_id, attributes, *file.sizes, now_ms),
        )
    return missing


_SHOWN = """(select f.*, s.id as store_id, d.name from vector_store_file f
    join vector_store s on s.n = f.store_n join document d on d.id = f.document_id)"""


def file(db: StoreConnection, owner: str, store_id: str, document_id: str) -> dict[str, Any] | None:
    rows = fetch(
        db,
        f"select * from {_SHOWN} where store_id = :store and document_id = :document and owner = :owner",
        {"store": store_id, "document": document_id, "owner": owner},
    )
    return rows[0] if rows else None


def files(
    db: StoreConnection, store_n: int, page: Page, *, status: str | None = None,
    batch_id: str | None = None,
) -> RowPage:  # fmt: skip
    """The files of a store by age, as pages over the ids of their documents."""
    # Pages are over the ids that clients know: those of documents.
    table = f"""(select n, store_n, store_id, batch_id, status, error, attributes, max_tokens,
        overlap_tokens, n_chunks, n_bytes, created_ms, name, document_id, document_id as id from {_SHOWN})"""
    where = """store_n = :store_n and (:status is null or status = :status)
        and (:batch is null or batch_id = :batch)"""
    values = {"store_n": store_n, "status": status, "batch": batch_id}
    return paged(db, table, where, values, page, order="created_ms")


def set_attributes(db: StoreConnection, file_n: int, attributes: dict[str, Any]) -> None:
    db.execute(
        "update vector_store_file set attributes = ? where n = ?",
        (json.dumps(attributes, ensure_ascii=False), file_n),
    )


def cancel_batch(db: StoreConnection, store_n: int, batch_id: str) -> int:
    """End the files of a batch that are not indexed yet."""
    done = db.execute(
        "update vector_store_file set status = 'cancelled' "
        "where store_n = ? and batch_id = ? and status = 'in_progress'",
        (store_n, batch_id),
    )
    return int(done.rowcount)


# ---- indexing


FILES_AT_ONCE = 16
_OPEN = """select f.n, f.owner, f.document_id, d.name, f.is_parsed, f.n_chunks, f.max_tokens,
    f.overlap_tokens, f.store_n, s.model from vector_store_file f
    join document d on d.id = f.document_id join vector_store s on s.n = f.store_n
    where not s.is_deleting"""


def open_files(
    db: StoreConnection, *, models: Sequence[str], last_owner: str | None, besides: Sequence[int]
) -> list[OpenFile]:
    """The next files to index, of one store: those in progress, of another owner than the last where there
    is one; else those that were indexed without vectors, where one of the `models` can make them."""
    skipped = ", ".join(map(str, besides))
    first = db.execute(
        f"{_OPEN} and f.status = 'in_progress' order by f.owner = ?, f.n limit 1",
        (last_owner or "",),
    ).fetchone()
    condition = "f.status = 'in_progress'"
    if first is None and models:
        condition = f"f.status = 'completed' and not f.is_embedded and f.n not in ({skipped})"
        first = db.execute(
            f"{_OPEN} and {condition} and (s.model is null or s.model in ({marks(len(models))})) "
            "order by f.n limit 1",
            tuple(models),
        ).fetchone()
    if first is None:
        return []
    found = db.execute(
        f"{_OPEN} and {condition} and f.store_n = ? order by f.n limit ?", (first[8], FILES_AT_ONCE)
    ).fetchall()
    return [
        OpenFile(
            n=row[0], owner=row[1], document_id=row[2], name=row[3], is_parsed=bool(row[4]),
            n_chunks=row[5], sizes=(row[6], row[7]), store_n=row[8], model=row[9],
        )
        for row in found
    ]  # fmt: skip


def set_model(db: StoreConnection, store_n: int, model: str) -> str:
    """The model of a store's vectors: the one that it has, else this one."""
    db.execute("update vector_store set model = ? where n = ? and model is null", (model, store_n))
    return str(scalar(db, "select model from vector_store where n = ?", (store_n,)) or model)


def set_parsed(db: StoreConnection, file_n: int) -> None:
    db.execute("update vector_store_file set is_parsed = 1 where n = ?", (file_n,))


def finish(db: StoreConnection, files: Sequence[int], *, is_embedded: bool) -> None:
    """All of these files is indexed."""
    db.execute(
        "update vector_store_file set status = 'completed', is_embedded = max(is_embedded, ?) "
        f"where n in ({marks(len(files))}) and status in ('in_progress', 'completed')",
        (int(is_embedded), *files),
    )


def fail(db: StoreConnection, file_n: int, error: dict[str, str]) -> None:
    """A document cannot be indexed, and says why."""
    drop_chunks(db, file_n)
    db.execute(
        "update vector_store_file set status = 'failed', error = ? where n = ? "
        "and status = 'in_progress'",
        (json.dumps(error, ensure_ascii=False), file_n),
    )


def drop_chunks(db: StoreConnection, file_n: int) -> None:
    """Forget the chunks of a file whose parsing was interrupted."""
    done = db.execute("delete from chunk where file_n = ?", (file_n,))
    db.execute("update vector_store_file set n_chunks = 0, n_bytes = 0 where n = ?", (file_n,))
    if done.rowcount:
        row_deletion.mark(db)
