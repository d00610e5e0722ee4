"""Documents of knowledge bases, as their owner sends and sees them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from typing import Any

from edgeagent.errors import BodyTooLarge, Erased, InvalidParameter
from edgeagent.serving.batches import new_file_id
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.store import documents
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.documents import PART_BYTES, PARTS_AT_ONCE, DocumentBounds, NewDocument
from edgeagent.store.sql import now_ms
from edgeagent.store.vector_stores import delete_some_chunks
from edgeagent.types.list_pages import Page, RowPage

PURPOSES = ("assistants", "user_data")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


class Documents:
    """Event loop's thread only."""

    def __init__(self, archive: Archive, settings: KnowledgeSettings) -> None:
        self._archive = archive
        self._settings = settings

    async def add(self, owner: str, name: str, purpose: str, data: bytes) -> dict[str, Any]:
        """Store a document; it is on disk when this returns. Raises: InvalidParameter, BodyTooLarge,
        RateLimited, StoreOff, StorageFull, Erased."""
        if not data:
            raise InvalidParameter("The file is empty: send one with content.", param="file")
        limit = self._settings.max_file_bytes
        if len(data) > limit:
            raise BodyTooLarge(
                f"The file has {len(data)} bytes, at most {limit} are taken: split it, or raise "
                "knowledge.max_file_bytes."
            )
        digest = await asyncio.to_thread(lambda: sha256(data).hexdigest())
        document = NewDocument(
            id=new_file_id(), owner=owner, name=plain_name(name), purpose=purpose, digest=digest,
            n_bytes=len(data),
        )  # fmt: skip
        bounds = DocumentBounds(
            n_documents=self._settings.max_files, n_bytes=self._settings.max_owner_bytes
        )
        await self._archive.write(
            owner, lambda db: documents.add(db, document, bounds, now_ms=now_ms())
        )
        try:
            await self._add_content(owner, document.id, data)
        except BaseException:
            await self._archive.database.write_async(
                lambda db: documents.forget_incomplete(db, document.id)
            )
            raise
        return await self.get(owner, document.id)

    async def _add_content(self, owner: str, document_id: str, data: bytes) -> None:
        step = PART_BYTES * PARTS_AT_ONCE
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            parts = [piece[at : at + PART_BYTES] for at in range(0, len(piece), PART_BYTES)]
            is_last = start + step >= len(data)

            def add(
                db: Any, first: int = start // PART_BYTES, parts: list[bytes] = parts,
                is_last: bool = is_last,
            ) -> bool:  # fmt: skip
                is_there = documents.add_parts(db, document_id, first, parts)
                return is_there and (not is_last or documents.complete(db, document_id))

            if not await self._archive.write(owner, add):
                raise Erased("The document was erased while it was being stored: send it again.")

    async def forget_incomplete(self) -> None:
        """Delete what an earlier daemon was sent and did not store to its end. Call it before any upload."""
        await self._archive.database.write_async(documents.forget_incomplete)

    async def get(self, owner: str, document_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self.find(owner, document_id)
        if found is None:
            raise absent(document_id)
        return found

    async def find(self, owner: str, document_id: str) -> dict[str, Any] | None:
        return await self._archive.database.read_async(
            lambda db: documents.get(db, owner, document_id)
        )

    async def all_files(self, owner: str, page: Page, purpose: str | None) -> RowPage:
        """Documents and files of batches."""
        return await self._archive.database.read_async(
            lambda db: documents.all_files(db, owner, page, purpose)
        )

    async def content(self, owner: str, document_id: str) -> AsyncIterator[bytes]:
        """The document as it was sent, some at a time. Raises: NotFound."""
        await self.get(owner, document_id)
        return self._pieces(document_id)

    async def _pieces(self, document_id: str) -> AsyncIterator[bytes]:
        first = 0
        while parts := await self._archive.database.read_async(
            partial(
                documents.some_content, document_id=document_id, first=first, n_parts=PARTS_AT_ONCE
            )
        ):
            yield b"".join(parts)
            first += len(parts)

    async def delete(self, owner: str, document_id: str) -> None:
        """Delete a document and what vector stores have of it. Raises: NotFound, LegalHold."""
        target = DeletionTarget("document", document_id, owner)
        await self._archive.check_removable(target)
        while await self._archive.database.write_async(
            lambda db: delete_some_chunks(db, "document_id", document_id), essential=True
        ):
            pass
        await self._archive.delete(target)


def plain_name(name: str) -> str:
    """The last part of a path, without marks that change how it is shown. It is never used as a path."""
    last = re.split(r"[/\\]", _UNSAFE.sub("", name))[-1].strip()
    return last[-255:] or "document"
