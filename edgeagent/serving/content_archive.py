"""What clients have stored: answers, their items, feedback and usage, separate for each owner.

    write   the only way to store content: refused where its subject was erased after the request came
    keep    commit an answer before its end is sent
    show    rows of the owner; rows of others do not exist for it
    delete  unless on legal hold; also for older copies of the database (store/client_deletion.py), and
            in every other place that may hold the content

With `store = "off"` there is no database, and a request to store is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from edgeagent.errors import Conflict, Erased, LegalHold, NotFound, StoreOff
from edgeagent.store import (
    client_deletion,
    erasure_epochs,
    feedback,
    full_text_search,
    items,
    requests,
    responses,
    row_queries,
)
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.database import Database
from edgeagent.store.erasure_hub import DeletedContent, ErasureHub
from edgeagent.store.items import Parent
from edgeagent.store.requests import RequestLog
from edgeagent.store.responses import StoredResponse
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.list_pages import Page, RowPage

T = TypeVar("T")


class Archive:
    """The stored content of all owners. Event loop's thread; the database does the work on its own
    threads. `request_log` has the requests that are not in the database yet."""

    def __init__(
        self,
        database: Database | None,
        *,
        is_searchable: bool,
        hub: ErasureHub | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self._database = database
        self._request_log = request_log
        self.is_searchable = is_searchable
        self._hub = hub or ErasureHub()

    @property
    def is_on(self) -> bool:
        return self._database is not None

    @property
    def database(self) -> Database:
        """Raises: StoreOff."""
        if self._database is None:
            raise StoreOff(
                'This daemon stores nothing (store = "off"): leave `store` out, or turn it on in its '
                "settings."
            )
        return self._database

    async def check(self) -> None:
        """Call before an answer that is to be stored. Raises: StoreOff; StorageFull while the disk is
        full."""
        if self.database.refusal is not None:
            # An empty write costs no sync, and is refused as any other while the disk is full.
            await self.database.write_async(lambda db: None)

    async def write(
        self, owner: str, fn: Callable[[Any], T], *, subjects: Iterable[str | None] = (),
        conversation: str | None = None,
    ) -> T:  # fmt: skip
        """Run `fn`, which stores content of this owner, about these subjects, in that conversation.

        Raises: Erased where one of them was erased since the request arrived (store/erasure_epochs.py);
        StoreOff, StorageFull, what `fn` raises.
        """
        database = self.database
        named = sorted({subject for subject in subjects if subject})
        mark = erasure_epochs.ContentOrigin(erasure_epochs.SEEN.get(), owner, named, conversation)

        def guarded(db: Any) -> T:
            erasure_epochs.check(db, database.journal.pseudonym, mark)
            return fn(db)

        try:
            return await database.write_async(guarded)
        except Erased:  # also delete what was computed of it since then
            await self.forget(DeletedContent("delete", owner))
            raise

    async def forget(self, gone: DeletedContent) -> None:
        """Make every place outside of the database forget what has been deleted."""
        await self._hub.forget(gone)

    async def keep(self, response: StoredResponse) -> None:
        """Store an answer; it is on disk when this returns. Raises: Erased, StorageFull."""
        await self.write(
            response.owner,
            lambda db: responses.put(
                db, response, now_ms=now_ms(), is_searchable=self.is_searchable
            ),
            subjects=[response.subject],
        )

    async def response(self, owner: str, response_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self.database.read_async(lambda db: responses.get(db, owner, response_id))
        if found is None:
            raise absent(response_id)
        return found

    async def responses(
        self, owner: str, page: Page, *, prefix: str, model: str | None = None
    ) -> RowPage:
        return await self.database.read_async(
            lambda db: responses.listed(db, owner, page, prefix=prefix, model=model)
        )

    async def relabel(
        self, owner: str, response_id: str, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """Replace the metadata of an answer and with it its subject. Raises: NotFound, Erased."""
        found = await self.write(
            owner,
            lambda db: responses.relabel(db, owner, response_id, metadata),
            subjects=[subject_of(metadata)],
        )
        if found is None:
            raise absent(response_id)
        return found

    async def delete_response(self, owner: str, response_id: str) -> None:
        """Raises: NotFound; LegalHold for one on legal hold."""
        await self.delete(DeletionTarget("response", response_id, owner))

    async def delete(self, target: DeletionTarget) -> None:
        """Delete one row with everything that belongs to it. The deletion is on disk, also in the journal,
        when this returns; it works on a full disk. Raises: NotFound, LegalHold, StoreOff."""
        database = self.database
        if (
            self._request_log is not None
        ):  # its rows may be written between the deletion and `forget`
            self._request_log.forget_decisions(target.owner)
        done = await asyncio.to_thread(client_deletion.delete, database, target)
        if done is None:
            raise on_hold(target.id)
        if not done:
            raise absent(target.id)
        await self.forget(DeletedContent("delete", target.owner, conversation=target.conversation))

    async def check_removable(self, target: DeletionTarget) -> None:
        """Raises: NotFound for what this owner does not have; LegalHold for what must stay."""
        can_go = await self.database.read_async(
            lambda db: row_queries.is_removable(db, target.table, target.where, target.values)
        )
        if can_go is None:
            raise on_hold(target.id)
        if not can_go:
            raise absent(target.id)

    async def items(self, owner: str, parent: Parent, parent_id: str, page: Page) -> RowPage:
        return await self.database.read_async(
            lambda db: items.listed(db, owner, parent, parent_id, page)
        )

    async def usage(
        self, owner: str | None, *, since_ms: int, until_ms: int
    ) -> list[dict[str, Any]]:
        """Requests and tokens by day and model."""
        return await self.database.read_async(
            lambda db: requests.usage(db, owner, since_ms=since_ms, until_ms=until_ms)
        )

    async def rate(
        self, owner: str, target_id: str, rating: int, comment: str | None = None, *,
        label: str | None = None, correction: str | None = None,
    ) -> None:  # fmt: skip
        """Store feedback on something of this owner. Raises: NotFound."""

        def add(db: Any) -> bool:
            if not feedback.has_target(db, owner, target_id):
                return False
            feedback.add(
                db, owner, target_id, rating=rating, comment=comment, label=label,
                correction=correction, now_ms=now_ms(),
            )  # fmt: skip
            return True

        if await self.write(owner, add):
            return
        # Requests are written in groups, and people rate an answer within seconds.
        log = self._request_log
        if log is None or not log.has(owner, target_id):
            raise absent(target_id)
        await log.flush()
        if not await self.write(owner, add):
            raise absent(target_id)

    async def find(self, owner: str, text: str, limit: int) -> list[dict[str, Any]]:
        """Items of this owner that contain all the words. Raises: Conflict where content is not indexed."""
        if not self.is_searchable:
            raise Conflict(
                "Content is not indexed on this device: turn `search` on in its settings. What was stored "
                "before is not found then either."
            )
        return await self.database.read_async(
            lambda db: full_text_search.find_items(db, owner, text, limit=limit)
        )


def on_hold(what: str) -> LegalHold:
    return LegalHold(f"{what} is on legal hold and cannot be deleted: have it released first.")


def absent(what: str) -> NotFound:
    """The same message for what does not exist and for what belongs to another owner: it gives no hint."""
    return NotFound(f"{what[:80]!r} is not among what is stored for this key: check the id.")
