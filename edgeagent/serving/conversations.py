"""Conversations and chains of responses: what was said before, and what is added to it.

    history     of a conversation, or behind a response; another owner's does not exist
    hold        one answer of a conversation at a time
    begin       an answer that goes on without its client: on disk, open
    finish      its end
    keep        a whole answer at once

What is stored goes through `Archive.write`, and what is deleted is forgotten elsewhere too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from edgeagent.errors import Conflict, ConversationLocked, Erased, NotFound
from edgeagent.serving.archive import Archive, absent
from edgeagent.store import conversations, history, items, responses
from edgeagent.store.client_deletion import Target
from edgeagent.store.history import History
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse
from edgeagent.store.rows import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.ids import RESPONSE_PREFIX
from edgeagent.types.pages import Page, RowPage

WHY_INTERRUPTED = "The daemon was stopped before this response had ended: send the request again."
INTERRUPTED = {
    "code": "server_error", "type": "interrupted", "message": WHY_INTERRUPTED, "param": None,
}  # fmt: skip


# Notes who reads what is stored by continuing it; set for requests where such reads are audited
# (api/http/read_audit.py).
NOTE_READ: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar(
    "note_read", default=None
)


async def _note_read(what: str) -> None:
    note = NOTE_READ.get()
    if note is not None:
        await note(what)


class Conversations:
    """All owners' conversations. Event loop's thread; the work is done by the database's."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
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
            await _note_read(f"previous_response_id {response_id[:100]}")
            return await self._archive.database.read_async(
                lambda db: history.of_response(db, owner, response_id)
            )
        if conversation_id is not None:
            await _note_read(f"conversation {conversation_id[:100]}")
            return await self._archive.database.read_async(
                lambda db: history.of_conversation(db, owner, conversation_id)
            )
        return None

    async def referenced(self, owner: str, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The bodies of stored items. Raises: NotFound, StoreOff."""

        def look(db: Any) -> list[dict[str, Any] | None]:
            found = [items.find(db, owner, item_id) for item_id in item_ids]
            return [row["body"] if row is not None else None for row in found]

        for item_id in item_ids:
            await _note_read(f"item_reference {item_id[:100]}")
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

    async def keep(self, response: StoredResponse, about: Iterable[str | None] = ()) -> None:
        """Store a whole answer. `about`: whom else it was made from. Raises: Conflict where its
        conversation has gone; Erased where one of them was erased meanwhile; StorageFull."""
        await self._put(response, about)

    async def begin(self, response: StoredResponse, about: Iterable[str | None] = ()) -> None:
        """Store an answer that is still open, with what was asked. Raises as `keep`."""
        await self._put(response, about)

    async def _put(self, response: StoredResponse, about: Iterable[str | None]) -> None:
        def put(db: Any) -> None:
            self._touch(db, response.owner, response.conversation_id)
            whole = response
            if response.conversation_id is not None and not subject_of(response.body["metadata"]):
                # Whom the conversation is about may have been set while the answer was made.
                row = conversations.get(db, response.owner, response.conversation_id)
                whole = msgspec.structs.replace(response, subject=row and row["subject"])
            responses.put(db, whole, now_ms=now_ms(), is_searchable=self._archive.is_searchable)

        await self._archive.write(
            response.owner, put, subjects=[response.subject, *about],
            conversation=response.conversation_id,
        )  # fmt: skip

    async def finish(self, response: StoredResponse) -> None:
        """The end of an answer that was begun, with what is new of it. Its row is still there if nothing
        has erased it. Raises: Erased where it has gone, or has ended, meanwhile."""

        def end(db: Any) -> bool:
            return responses.finish(
                db, response, now_ms=now_ms(), is_searchable=self._archive.is_searchable
            )

        if not await self._archive.database.write_async(end):
            raise Erased(
                f"{response.id} was deleted while it was being made: nothing of it is stored."
            )

    async def stored(self, response_ids: Sequence[str]) -> set[str]:
        """Those of these answers whose content is still stored."""
        return await self._archive.database.read_async(
            lambda db: responses.with_content(db, response_ids)
        )

    async def response(self, owner: str, response_id: str) -> dict[str, Any]:
        """A stored answer with what it consists of in `output`. Raises: NotFound, StoreOff."""

        def look(db: Any) -> dict[str, Any] | None:
            row = responses.get(db, owner, response_id)
            return None if row is None else row | {"output": items.made(db, owner, response_id)}

        found = await self._archive.database.read_async(look)
        if found is None or not response_id.startswith(RESPONSE_PREFIX):
            raise absent(response_id)
        return found

    async def input_items(self, owner: str, response_id: str, page: Page) -> RowPage:
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
            made = conversations.create(db, owner, metadata=metadata, now_ms=now_ms())
            self._add(db, owner, made["id"], first)
            return made

        return await self._archive.write(owner, make, subjects=[subject_of(metadata)])

    async def conversation(self, owner: str, conversation_id: str) -> dict[str, Any]:
        """Raises: NotFound, StoreOff."""
        found = await self._archive.database.read_async(
            lambda db: conversations.get(db, owner, conversation_id)
        )
        return _row(found, conversation_id)

    async def update(
        self, owner: str, conversation_id: str, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """Replace the metadata, and whom it is about. Raises: NotFound, Erased, StoreOff."""
        found = await self._archive.write(
            owner,
            lambda db: conversations.update(
                db, owner, conversation_id, metadata=metadata, now_ms=now_ms()
            ),
            subjects=[subject_of(metadata)],
            conversation=conversation_id,
        )
        return _row(found, conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Delete a conversation with everything in it. Raises: NotFound, LegalHold, StoreOff."""
        await self._archive.delete(Target("conversation", conversation_id, owner, conversation_id))

    async def add(
        self,
        owner: str,
        conversation_id: str,
        new: Sequence[Item],
        about: Iterable[str | None] = (),
    ) -> None:
        """Append items, made from what is stored `about` whom. Raises: NotFound, Erased, StoreOff,
        StorageFull."""

        def append(db: Any) -> None:
            if not conversations.touch(db, owner, conversation_id, now_ms()):
                raise absent(conversation_id)
            self._add(db, owner, conversation_id, new)

        await self._archive.write(owner, append, subjects=about, conversation=conversation_id)

    async def items(self, owner: str, conversation_id: str, page: Page) -> RowPage:
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
        await self._archive.delete(Target("item", item_id, owner, conversation_id))
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


def _row(found: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if found is None:
        raise absent(what)
    return found
