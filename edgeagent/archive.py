"""What clients asked to be kept: answers, their items and usage, each owner's for itself.

    keep    before the answer's end is sent, committed
    show    by owner; what is another's does not exist
    delete  unless it is on legal hold; `forget` is told whose it was

With `store = "off"` there is nothing behind it, and whoever asks to store is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeagent.errors import Conflict, NotFound, StoreOff
from edgeagent.store import feedback, items, requests, responses, search
from edgeagent.store.database import Database
from edgeagent.store.items import Parent
from edgeagent.store.responses import StoredResponse
from edgeagent.store.rows import Listed, Page
from edgeagent.store.sql import now_ms


class Archive:
    """The kept content of all owners. Event loop's thread; the work is done by the database's."""

    def __init__(
        self,
        database: Database | None,
        *,
        is_searchable: bool,
        forget: Callable[[str], None] = lambda owner: None,
    ) -> None:
        self._database = database
        self.is_searchable = is_searchable
        self._forget = forget

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
        """Before an answer that is to be kept. Raises: StoreOff; StorageFull while the disk is full."""
        if self.database.refusal is not None:
            # Nothing to commit costs no sync, and is refused as any write while it must be.
            await self.database.write_async(lambda db: None)

    async def keep(self, response: StoredResponse) -> None:
        """Store an answer; it is on disk when this returns. Raises: StorageFull."""
        await self.database.write_async(
            lambda db: responses.put(
                db, response, now_ms=now_ms(), is_searchable=self.is_searchable
            )
        )

    async def response(self, owner: str, response_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self.database.read_async(lambda db: responses.get(db, owner, response_id))
        if found is None:
            raise absent(response_id)
        return found

    async def responses(
        self, owner: str, page: Page, *, prefix: str, model: str | None = None
    ) -> Listed:
        return await self.database.read_async(
            lambda db: responses.listed(db, owner, page, prefix=prefix, model=model)
        )

    async def update(self, owner: str, response_id: str, body: dict[str, Any]) -> None:
        await self.database.write_async(
            lambda db: responses.update_body(db, owner, response_id, body)
        )

    async def delete_response(self, owner: str, response_id: str) -> None:
        """Raises: NotFound; Conflict for one on legal hold."""
        done = await self.database.write_async(lambda db: responses.delete(db, owner, response_id))
        if done is None:
            raise Conflict(
                f"{response_id} is on legal hold and cannot be deleted: have it released first."
            )
        if not done:
            raise absent(response_id)
        self._forget(owner)

    async def items(self, owner: str, parent: Parent, parent_id: str, page: Page) -> Listed:
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

    async def rate(self, owner: str, target_id: str, rating: int, comment: str | None) -> None:
        """Keep feedback on something of this owner. Raises: NotFound."""

        def add(db: Any) -> bool:
            if not feedback.has_target(db, owner, target_id):
                return False
            feedback.add(db, owner, target_id, rating=rating, comment=comment, now_ms=now_ms())
            return True

        if not await self.database.write_async(add):
            raise absent(target_id)

    async def find(self, owner: str, text: str, limit: int) -> list[dict[str, Any]]:
        """Items of this owner that have all the words. Raises: Conflict where nothing is indexed."""
        if not self.is_searchable:
            raise Conflict(
                "Content is not indexed on this device: turn `search` on in its settings. What was stored "
                "before is not found then either."
            )
        return await self.database.read_async(
            lambda db: search.find_items(db, owner, text, limit=limit)
        )


def absent(what: str) -> NotFound:
    """One text for what is not there and what is another's: who tries ids learns nothing."""
    return NotFound(f"{what[:80]!r} is not among what is stored for this key: check the id.")
