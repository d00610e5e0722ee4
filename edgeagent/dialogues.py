"""Conversations and chains of responses: what was said before, and what is added to it.

    history     of a conversation, or behind a response; another owner's does not exist
    hold        one answer of a conversation at a time
    begin       an answer that goes on without its client: on disk, open
    finish      its end
    keep        a whole answer at once

What is deleted is forgotten elsewhere too: `forget` is told whose it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeagent.archive import Archive, absent
from edgeagent.errors import Conflict, ConversationLocked, LegalHold, NotFound
from edgeagent.store import conversations, history, items, responses
from edgeagent.store.history import History
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse
from edgeagent.store.rows import Listed, Page
from edgeagent.store.sql import now_ms

WHY_INTERRUPTED = "The daemon was stopped before this response had ended: send the request again."
INTERRUPTED = {
    "code": "server_error", "type": "interrupted", "message": WHY_INTERRUPTED, "param": None,
}  # fmt: skip


class Dialogues:
    """All owners' dialogues. Event loop's thread; the work is done by the database's."""

    def __init__(
        self, archive: Archive, forget: Callable[[str], None] = lambda owner: None
    ) -> None:
        self._archive = archive
        self._forget = forget
        self._held: set[str] = set()

    async def fail_open(self) -> int:
        """Mark answers that an earlier daemon did not finish. Raises what the store raises."""
        return await self._archive.database.write_async(
            lambda db: responses.fail_open(db, INTERRUPTED)
        )

    # ---- what was said before

    async def history(
        self, owner: str, *, response_id: str | None = None, conversation_id: str | None = None
    ) -> History | None:
        """What stands before a new answer; None for one that begins anew.

        Raises: PreviousNotFound, NotFound, ContextLengthExceeded, StoreOff.
        """
        if response_id is not None:
            return await self._archive.database.read_async(
                lambda db: history.of_response(db, owner, response_id)
            )
        if conversation_id is not None:
            return await self._archive.database.read_async(
                lambda db: history.of_conversation(db, owner, conversation_id)
            )
        return None

    async def referenced(self, owner: str, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The bodies of stored items. Raises: NotFound, StoreOff."""

        def look(db: Any) -> list[dict[str, Any] | None]:
            found = [items.find(db, owner, item_id) for item_id in item_ids]
            return [row["body"] if row is not None else None for row in found]

        bodies = await self._archive.database.read_async(look)
        for item_id, body in zip(item_ids, bodies, strict=True):
            if body is None or "type" not in body:
                raise NotFound(
                    f"Item {item_id[:80]!r} is not among what is stored for this key: check the id, or "
                    "send the item itself.",
                    param="input",
                )
        return [body for body in bodies if body is not None]

    def hold(self, conversation_id: str) -> Callable[[], None]:
        """Keep others from answering in a conversation, until the function that this gives is called,
        which may be called twice. Raises: ConversationLocked."""
        if conversation_id in self._held:
            raise ConversationLocked(
                f"Conversation {conversation_id[:80]!r} is being answered in by another request: send "
                "this one again when that has ended.",
                param="conversation",
                retry_after_s=1.0,
            )
        self._held.add(conversation_id)
        is_released = False

        def release() -> None:
            nonlocal is_released
            if not is_released:
                is_released = True
                self._held.discard(conversation_id)

        return release

    # ---- answers

    async def keep(self, response: StoredResponse) -> None:
        """Store a whole answer. Raises: Conflict where its conversation has gone; StorageFull."""
        await self._put(response)

    async def begin(self, response: StoredResponse) -> None:
        """Store an answer that is still open, with what was asked. Raises as `keep`."""
        await self._put(response)

    async def _put(self, response: StoredResponse) -> None:
        def put(db: Any) -> None:
            self._touch(db, response.owner, response.conversation_id)
            responses.put(db, response, now_ms=now_ms(), is_searchable=self._archive.is_searchable)

        await self._archive.database.write_async(put)

    async def finish(self, response: StoredResponse) -> bool:
        """The end of an answer that was begun, with what is new of it. False: deleted meanwhile."""

        def end(db: Any) -> bool:
            return responses.finish(
                db, response, now_ms=now_ms(), is_searchable=self._archive.is_searchable
            )

        return await self._archive.database.write_async(end)

    async def response(self, owner: str, response_id: str) -> dict[str, Any]:
        """A stored answer with what it consists of in `output`. Raises: NotFound, StoreOff."""

        def look(db: Any) -> dict[str, Any] | None:
            row = responses.get(db, owner, response_id)
            return None if row is None else row | {"output": items.made(db, owner, response_id)}

        found = await self._archive.database.read_async(look)
        if found is None or not response_id.startswith(history.PREFIX):
            raise absent(response_id)
        return found

    async def input_items(self, owner: str, response_id: str, page: Page) -> Listed:
        """What a stored answer was asked, without what stood before. Raises: NotFound, StoreOff."""
        await self.response(owner, response_id)
        return await self._archive.database.read_async(
            lambda db: items.listed(
                db, owner, "response_id", response_id, page, is_input=True, with_content=True
            )
        )

    # ---- conversations

    async def create(
        self, owner: str, metadata: dict[str, str], first: Sequence[Item]
    ) -> dict[str, Any]:
        """Begin a conversation with some items. Raises: StoreOff, StorageFull."""

        def make(db: Any) -> dict[str, Any]:
            made = conversations.create(
                db, owner, metadata=metadata, subject=metadata.get("subject"), now_ms=now_ms()
            )
            self._add(db, owner, made["id"], first)
            return made

        return await self._archive.database.write_async(make)

    async def conversation(self, owner: str, conversation_id: str) -> dict[str, Any]:
        """Raises: NotFound, StoreOff."""
        found = await self._archive.database.read_async(
            lambda db: conversations.get(db, owner, conversation_id)
        )
        return _row(found, conversation_id)

    async def update(
        self, owner: str, conversation_id: str, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """Replace the metadata. Raises: NotFound, StoreOff."""
        found = await self._archive.database.write_async(
            lambda db: conversations.update(
                db, owner, conversation_id, metadata=metadata, now_ms=now_ms()
            )
        )
        return _row(found, conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Delete a conversation with everything in it. Raises: NotFound, LegalHold, StoreOff."""
        done = await self._archive.database.write_async(
            lambda db: conversations.delete(db, owner, conversation_id)
        )
        self._deleted(owner, conversation_id, done)

    async def add(self, owner: str, conversation_id: str, new: Sequence[Item]) -> None:
        """Append items. Raises: NotFound, StoreOff, StorageFull."""

        def append(db: Any) -> None:
            if not conversations.touch(db, owner, conversation_id, now_ms()):
                raise absent(conversation_id)
            self._add(db, owner, conversation_id, new)

        await self._archive.database.write_async(append)

    async def items(self, owner: str, conversation_id: str, page: Page) -> Listed:
        """Raises: NotFound, StoreOff."""
        await self.conversation(owner, conversation_id)
        return await self._archive.database.read_async(
            lambda db: items.listed(
                db, owner, "conversation_id", conversation_id, page, with_content=True
            )
        )

    async def item(self, owner: str, conversation_id: str, item_id: str) -> dict[str, Any]:
        """The body of one item. Raises: NotFound, StoreOff."""
        found = await self._archive.database.read_async(
            lambda db: items.get(db, owner, "conversation_id", conversation_id, item_id)
        )
        return _row(found and found["body"], item_id)

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> dict[str, Any]:
        """Delete one item; gives its conversation. Raises: NotFound, LegalHold, StoreOff."""
        found = await self.conversation(owner, conversation_id)
        done = await self._archive.database.write_async(
            lambda db: items.delete(db, owner, "conversation_id", conversation_id, item_id)
        )
        self._deleted(owner, item_id, done)
        return found

    # ---- helpers

    def _touch(self, db: Any, owner: str, conversation_id: str | None) -> None:
        if conversation_id is not None and not conversations.touch(
            db, owner, conversation_id, now_ms()
        ):
            raise Conflict(
                f"Conversation {conversation_id[:80]!r} was deleted while it was being answered in: "
                "begin another one.",
                param="conversation",
            )

    def _add(self, db: Any, owner: str, conversation_id: str, new: Sequence[Item]) -> None:
        items.add(
            db,
            owner,
            new,
            conversation_id=conversation_id,
            now_ms=now_ms(),
            is_searchable=self._archive.is_searchable,
        )

    def _deleted(self, owner: str, what: str, done: bool | None) -> None:
        if done is None:
            raise LegalHold(
                f"{what} is on legal hold and cannot be deleted: have it released first."
            )
        if not done:
            raise absent(what)
        self._forget(owner)


def _row(found: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if found is None:
        raise absent(what)
    return found
