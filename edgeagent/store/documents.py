"""Documents as they were sent. Functions run inside `Database.write` or `read`.

A document is written part by part, so that no other write waits for all of it, and is shown once it is
complete.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgeagent.errors import RateLimited
from edgeagent.store import batches, row_deletion
from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch, paged
from edgeagent.store.sql import scalar
from edgeagent.types.list_pages import Page, RowPage

PART_BYTES = 64 << 10
PARTS_AT_ONCE = 16
FULL_RETRY_S = 60.0


class DocumentBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner may have."""

    n_documents: int
    n_bytes: int


class NewDocument(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    owner: str
    name: str
    purpose: str
    digest: str
    n_bytes: int


def add(db: StoreConnection, document: NewDocument, bounds: DocumentBounds, *, now_ms: int) -> None:
    """Begin a document. Raises: RateLimited beyond the bounds of the owner."""
    n_documents, n_bytes = db.execute(
        "select count(*), coalesce(sum(n_bytes), 0) from document where owner = ?",
        (document.owner,),
    ).fetchone()
    if n_documents >= bounds.n_documents or n_bytes + document.n_bytes > bounds.n_bytes:
        raise RateLimited(
            f"This owner has {n_documents} documents with {n_bytes} bytes, this one has {document.n_bytes}; "
            f"at most {bounds.n_documents} with {bounds.n_bytes} bytes are kept: delete some, or raise "
            "knowledge.max_files and knowledge.max_owner_bytes.",
            retry_after_s=FULL_RETRY_S,
        )
    db.execute(
        "insert into document (id, owner, name, purpose, digest, n_bytes, created_ms) "
        "values (?, ?, ?, ?, ?, ?, ?)",
        (
            document.id, document.owner, document.name, document.purpose, document.digest,
            document.n_bytes, now_ms,
        ),
    )  # fmt: skip


def add_parts(db: StoreConnection, document_id: str, first: int, parts: list[bytes]) -> bool:
    """Add the next parts. False: the document has been erased meanwhile."""
    if scalar(db, "select 1 from document where id = ?", (document_id,)) is None:
        return False
    for position, part in enumerate(parts, first):
        db.execute(
            "insert into document_part (document_id, position, body) values (?, ?, ?)",
            (document_id, position, part),
        )
    return True


def complete(db: StoreConnection, document_id: str) -> bool:
    done = db.execute("update document set is_complete = 1 where id = ?", (document_id,))
    return bool(done.rowcount)


def forget_incomplete(db: StoreConnection, document_id: str | None = None) -> int:
    """Delete documents whose upload was interrupted: all, at the start, or one."""
    done = db.execute(
        "delete from document where is_complete = 0 and (:id is null or id = :id)",
        {"id": document_id},
    )
    if done.rowcount:
        row_deletion.mark(db)
    return int(done.rowcount)


def get(db: StoreConnection, owner: str, document_id: str) -> dict[str, Any] | None:
    rows = fetch(
        db,
        "select * from document where id = :id and owner = :owner and is_complete",
        {"id": document_id, "owner": owner},
    )
    return rows[0] if rows else None


def some_content(db: StoreConnection, document_id: str, first: int, n_parts: int) -> list[bytes]:
    """Some parts from a position on; empty at the end."""
    found = db.execute(
        "select body from document_part where document_id = ? and position >= ? and position < ? "
        "order by position",
        (document_id, first, first + n_parts),
    ).fetchall()
    return [row[0] for row in found]


_COLUMNS = "id, owner, name, purpose, n_bytes, created_ms"
_FILES = f"""(select {_COLUMNS} from batch_file where {batches.SHOWN}
    union all select {_COLUMNS} from document where owner = :owner and is_complete)"""


def all_files(db: StoreConnection, owner: str, page: Page, purpose: str | None = None) -> RowPage:
    """The owner's documents and files of batches by age."""
    where = "true" if purpose is None else "purpose = :purpose"
    values = {"owner": owner, "purpose": purpose}
    return paged(db, _FILES, where, values, page, order="created_ms")
