"""Vector stores and the documents in them, as their owner sees them. `indexer.py` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from edgeagent.errors import NotFound
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.serving.knowledge.wishes import FileWish
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.store import chunks, vector_stores
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.store.vector_stores import NewStore, NewStoreFile
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import Page, RowPage

TEXTS_AT_ONCE = 200


class VectorStores:
    """`wake` is called when there is something to index. Event loop's thread only."""

    def __init__(
        self, archive: Archive, settings: KnowledgeSettings, wake: Callable[[], None]
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._wake = wake

    # ---- stores

    async def create(
        self, owner: str, *, name: str, description: str | None, metadata: dict[str, str],
        expires_days: int | None, files: Sequence[FileWish],
    ) -> dict[str, Any]:  # fmt: skip
        """Raises: NotFound for a document that the owner does not have; RateLimited, StoreOff, StorageFull,
        Erased."""
        store = NewStore(
            id=new_id("vs"), owner=owner, name=name, description=description, metadata=metadata,
            expires_days=expires_days,
        )  # fmt: skip

        def add(db: Any) -> None:
            vector_stores.add(db, store, self._settings.max_stores, now_ms=now_ms())
            found = vector_stores.get(db, owner, store.id)
            assert found is not None, "it was made above"
            self._add(db, owner, found["n"], files, None)

        await self.finish_deletions()
        await self._archive.write(owner, add, subjects=[subject_of(metadata)])
        self._wake()
        return await self.get(owner, store.id)

    async def get(self, owner: str, store_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self._archive.database.read_async(
            lambda db: vector_stores.get(db, owner, store_id)
        )
        if found is None:
            raise absent(store_id)
        return found

    async def listed(self, owner: str, page: Page) -> RowPage:
        return await self._archive.database.read_async(
            lambda db: vector_stores.listed(db, owner, page)
        )

    async def change(self, owner: str, store_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Raises: NotFound, Erased."""
        about = [subject_of(fields["metadata"])] if "metadata" in fields else []
        is_there = await self._archive.write(
            owner, lambda db: vector_stores.change(db, owner, store_id, fields), subjects=about
        )
        if not is_there:
            raise absent(store_id)
        return await self.get(owner, store_id)

    async def delete(self, owner: str, store_id: str) -> None:
        """Delete a store and its chunks; the documents stay. Raises: NotFound, LegalHold."""
        found = await self.get(owner, store_id)
        target = DeletionTarget("vector_store", store_id, owner)
        await self._archive.check_removable(target)
        await self._archive.database.write_async(
            lambda db: vector_stores.begin_deletion(db, owner, store_id), essential=True
        )
        await self._drop_chunks("store_n", found["n"])
        await self._archive.delete(target)

    async def finish_deletions(self) -> None:
        """Delete the stores whose time is over, and those whose deletion was interrupted."""
        gone = await self._archive.database.read_async(
            lambda db: vector_stores.expired(db, now_ms=now_ms())
        )
        for owner, store_id in gone:
            number = await self._archive.database.write_async(partial(_hidden, owner, store_id))
            if number is not None:
                await self._drop_chunks("store_n", number)
                await self._archive.delete(DeletionTarget("vector_store", store_id, owner))

    async def _drop_chunks(self, column: str, value: Any, status: str | None = None) -> None:
        """Delete chunks in steps, so that no other write waits long for a large store."""
        while await self._archive.database.write_async(
            lambda db: vector_stores.delete_some_chunks(db, column, value, status), essential=True
        ):
            pass

    # ---- documents in a store

    async def add_files(
        self, owner: str, store_id: str, files: Sequence[FileWish], batch_id: str | None = None
    ) -> None:
        """Take documents, which are indexed behind this. Raises: NotFound, RateLimited, Erased."""
        store = await self.get(owner, store_id)
        await self._archive.write(
            owner, lambda db: self._add(db, owner, store["n"], files, batch_id),
            subjects=[store["subject"]],
        )  # fmt: skip
        self._wake()

    def _add(
        self, db: Any, owner: str, store_n: int, files: Sequence[FileWish], batch_id: str | None
    ) -> None:
        default = (self._settings.chunk_tokens, self._settings.overlap_tokens)
        new = [
            NewStoreFile(
                id=new_id("vsf"), document_id=file.document_id, attributes=file.attributes,
                sizes=file.sizes or default, batch_id=batch_id,
            )
            for file in files
        ]  # fmt: skip
        missing = vector_stores.add_files(
            db, owner, store_n, new, self._settings.max_files, now_ms=now_ms()
        )
        if missing:
            raise absent(missing[0])

    async def file(self, owner: str, store_id: str, document_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self._archive.database.read_async(
            lambda db: vector_stores.file(db, owner, store_id, document_id)
        )
        if found is None:
            raise absent(document_id)
        return found

    async def files(
        self, owner: str, store_id: str, page: Page, *, status: str | None = None,
        batch_id: str | None = None,
    ) -> RowPage:  # fmt: skip
        """Raises: NotFound."""
        store = await self.get(owner, store_id)
        return await self._archive.database.read_async(
            lambda db: vector_stores.files(db, store["n"], page, status=status, batch_id=batch_id)
        )

    async def set_attributes(
        self, owner: str, store_id: str, document_id: str, attributes: dict[str, Any]
    ) -> dict[str, Any]:
        """Raises: NotFound, Erased."""
        found = await self.file(owner, store_id, document_id)
        await self._archive.write(
            owner, lambda db: vector_stores.set_attributes(db, found["n"], attributes)
        )
        return await self.file(owner, store_id, document_id)

    async def remove_file(self, owner: str, store_id: str, document_id: str) -> None:
        """Take a document out of a store; the document stays. Raises: NotFound, LegalHold."""
        found = await self.file(owner, store_id, document_id)
        target = DeletionTarget("vector_store_file", found["id"], owner)
        await self._archive.check_removable(target)
        await self._drop_chunks("n", found["n"])
        await self._archive.delete(target)

    async def text(self, owner: str, store_id: str, document_id: str) -> AsyncIterator[list[str]]:
        """The chunks of a document in order, some at a time. Raises: NotFound."""
        found = await self.file(owner, store_id, document_id)
        return self._texts(found["n"])

    async def _texts(self, file_n: int) -> AsyncIterator[list[str]]:
        first = 0
        while rows := await self._archive.database.read_async(
            partial(chunks.of_file, file_n=file_n, first=first, limit=TEXTS_AT_ONCE)
        ):
            yield [f"{text}\n{answer}" if answer else text for _, text, answer in rows]
            first += len(rows)

    # ---- batches of documents

    async def batch(self, owner: str, store_id: str, batch_id: str) -> dict[str, Any]:
        """The counts of a batch, by status, and when it began. Raises: NotFound."""
        store = await self.get(owner, store_id)
        counts = await self._archive.database.read_async(
            lambda db: vector_stores.counts(db, "batch_id", batch_id)
        )
        first = await self.files(owner, store_id, Page(None, 1, False), batch_id=batch_id)
        if not first.rows:
            raise _no_batch(batch_id)
        return {
            "id": batch_id, "counts": counts, "created_ms": first.rows[0]["created_ms"],
            "store_id": store["id"],
        }  # fmt: skip

    async def cancel_batch(self, owner: str, store_id: str, batch_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        await self.batch(owner, store_id, batch_id)
        store = await self.get(owner, store_id)
        await self._archive.database.write_async(
            lambda db: vector_stores.cancel_batch(db, store["n"], batch_id)
        )
        await self._drop_chunks("batch_id", batch_id, "cancelled")
        return await self.batch(owner, store_id, batch_id)


def _hidden(owner: str, store_id: str, db: Any) -> int | None:
    vector_stores.begin_deletion(db, owner, store_id)
    row = db.execute(
        "select n from vector_store where id = ? and owner = ? and is_deleting", (store_id, owner)
    ).fetchone()
    return None if row is None else int(row[0])


def _no_batch(batch_id: str) -> NotFound:
    return absent(batch_id)
