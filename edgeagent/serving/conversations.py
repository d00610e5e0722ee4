"""Conversations and chains of responses: their history, and what is added to it.

    history     of a conversation, or of a response and those before it
    hold        allow one answer in a conversation at a time
    begin       store a response in the background, open
    finish      store its end
    keep        store a whole response at once

What is stored goes through `Archive.write`; what is deleted is also deleted outside of the database.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from edgeagent.errors import Conflict, ConversationLocked, EdgeAgentError, Erased, NotFound
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.serving.items import REFERENCE, Body, stored_item
from edgeagent.serving.turn_privacy import PRIVACY, strictest, with_privacy
from edgeagent.store import conversations, history, items, responses
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.history import History
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.ids import RESPONSE_PREFIX, new_id
from edgeagent.types.list_pages import Page, RowPage

logger = logging.getLogger(__name__)

WHY_INTERRUPTED = "The daemon was stopped before this response had ended: send the request again."
INTERRUPTED = {
    "code": "server_error", "type": "interrupted", "message": WHY_INTERRUPTED, "param": None,
}  # fmt: skip


# Audits a read of stored data by continuing it; set for requests where such reads are audited
# (api/http/read_audit.py).
NOTE_READ: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar(
    "note_read", default=None
)


async def _note_read(what: str) -> None:
    note = NOTE_READ.get()
    if note is not None:
        await note(what)


class Conversations:
    """The conversations of all owners. Event loop's thread; the database does the work on its own threads."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._held: set[str] = set()

    async def fail_open(self) -> None:
        """Mark responses that an earlier daemon did not finish as failed. Where the store fails, they are
        shown as failed all the same."""
        try:
            n_failed = await self._archive.database.write_async(
                lambda db: responses.fail_open(db, INTERRUPTED)
            )
        except EdgeAgentError as exc:
            logger.warning("responses_not_marked code=%s", exc.code)
        else:
            if n_failed:
                logger.info("responses_interrupted n=%d", n_failed)

    # ---- history

    async def history(
        self, owner: str, *, response_id: str | None = None, conversation_id: str | None = None
    ) -> History | None:
        """The history before a new response; None where there is none.

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

    async def resolved(self, owner: str, bodies: Sequence[Body]) -> list[Body]:
        """Items as they are stored and shown. A reference becomes a copy of its item, with a new id.

        Raises: NotFound, StoreOff.
        """
        names = [body["id"] for body in bodies if body["type"] == REFERENCE]
        found = iter(await self._referenced(owner, names) if names else [])
        return [_copy(next(found)) if body["type"] == REFERENCE else body for body in bodies]

    async def privacy_of(self, owner: str, bodies: Sequence[Body]) -> list[str]:
        """The privacy classes of the turns that references point to. Call it before `resolved`: an item that
        is deleted in between is not found then, while its class would be lost."""
        names = [body["id"] for body in bodies if body["type"] == REFERENCE]
        if not names:
            return []
        return await self._archive.database.read_async(
            lambda db: history.privacy_of_items(db, owner, names)
        )

    async def _referenced(self, owner: str, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The bodies of stored items. Raises: NotFound, StoreOff."""

        def look(db: Any) -> list[dict[str, Any] | None]:
            found = [items.find(db, owner, item_id) for item_id in item_ids]
            return [row["body"] if row is not None else None for row in found]

        for item_id in item_ids:
            await _note_read(f"item_reference {item_id[:100]}")
        bodies = await self._archive.database.read_async(look)
        for item_id, body in zip(item_ids, bodies, strict=True):
            if (
                body is None or not {"type", "id"} <= body.keys()
            ):  # parts of stored chats have no id
                raise NotFound(
                    f"Item {item_id[:80]!r} is not among what is stored for this key: check the id, or "
                    "send the item itself.",
                    param="input",
                )
        return [body for body in bodies if body is not None]

    def hold(self, conversation_id: str) -> Callable[[], None]:
        """Keep other requests from answering in a conversation until the returned function is called, which
        may be called twice. Raises: ConversationLocked."""
        if conversation_id in self._held:
            raise ConversationLocked(
                f"Conversation {conversation_id[:80]!r} is in use by another request: send "
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
        """Store a whole response. `about` names subjects of its history. Raises: Conflict where its
        conversation was deleted; Erased where one of the subjects was erased meanwhile; StorageFull."""
        await self._put(response, about)

    async def begin(self, response: StoredResponse, about: Iterable[str | None] = ()) -> None:
        """Store an open response with its input. Raises as `keep`."""
        await self._put(response, about)

    async def _put(self, response: StoredResponse, about: Iterable[str | None]) -> None:
        def put(db: Any) -> None:
            self._touch(db, response.owner, response.conversation_id)
            whole = response
            if response.conversation_id is not None and not subject_of(response.body["metadata"]):
                # The subject of the conversation may have been set while the response was made.
                row = conversations.get(db, response.owner, response.conversation_id)
                whole = msgspec.structs.replace(response, subject=row and row["subject"])
            responses.put(db, whole, now_ms=now_ms(), is_searchable=self._archive.is_searchable)

        await self._archive.write(
            response.owner, put, subjects=[response.subject, *about],
            conversation=response.conversation_id,
        )  # fmt: skip

    async def finish(self, response: StoredResponse) -> None:
        """Store the end of an open response with its new items. Raises: Erased where it was deleted or
        ended meanwhile."""

        def end(db: Any) -> bool:
            return responses.finish(
                db, response, now_ms=now_ms(), is_searchable=self._archive.is_searchable
            )

        if not await self._archive.database.write_async(end):
            raise Erased(
                f"{response.id} was deleted while it was being made: nothing of it is stored."
            )

    async def stored(self, response_ids: Sequence[str]) -> set[str]:
        """The ids among these whose content is still stored."""
        return await self._archive.database.read_async(
            lambda db: responses.with_content(db, response_ids)
        )

    async def response(self, owner: str, response_id: str) -> dict[str, Any]:
        """A stored response with its items in `output`. Raises: NotFound, StoreOff."""

        def look(db: Any) -> dict[str, Any] | None:
            row = responses.get(db, owner, response_id)
            return None if row is None else row | {"output": items.made(db, owner, response_id)}

        found = await self._archive.database.read_async(look)
        if found is None or not response_id.startswith(RESPONSE_PREFIX):
            raise absent(response_id)
        return found

    async def input_items(self, owner: str, response_id: str, page: Page) -> RowPage:
        """The input of a stored response, without its history. Raises: NotFound, StoreOff."""
        await self.response(owner, response_id)
        return await self._archive.database.read_async(
            lambda db: items.listed(
                db, owner, "response_id", response_id, page, is_input=True, with_content=True
            )
        )

    # ---- conversations

    async def create(
        self, owner: str, metadata: dict[str, str], bodies: Sequence[Body]
    ) -> dict[str, Any]:
        """Create a conversation with some items, as private as those that it takes over. Raises: NotFound,
        StoreOff, StorageFull."""
        metadata = with_privacy(metadata, await self.privacy_of(owner, bodies))
        first = [stored_item(b, is_input=True) for b in await self.resolved(owner, bodies)]

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
        """Replace the metadata and with it the subject; the conversation stays as private as it was.
        Raises: NotFound, Erased, StoreOff."""

        def replace(db: Any) -> dict[str, Any] | None:
            row = conversations.get(db, owner, conversation_id)
            before = row["metadata"].get(PRIVACY) if row is not None else None
            new = with_privacy(metadata, [before])
            return conversations.update(db, owner, conversation_id, metadata=new, now_ms=now_ms())

        found = await self._archive.write(
            owner,
            replace,
            subjects=[subject_of(metadata)],
            conversation=conversation_id,
        )
        return _row(found, conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Delete a conversation with everything in it. Raises: NotFound, LegalHold, StoreOff."""
        await self._archive.delete(
            DeletionTarget("conversation", conversation_id, owner, conversation_id)
        )

    async def append(self, owner: str, conversation_id: str, bodies: Sequence[Body]) -> list[Body]:
        """Append items that a client sends. Gives them as they are stored. Raises as `add`."""
        privacy = strictest(await self.privacy_of(owner, bodies))
        new = await self.resolved(owner, bodies)
        added = [stored_item(b, is_input=True) for b in new]
        await self.add(owner, conversation_id, added, privacy=privacy)
        return new

    async def add(
        self,
        owner: str,
        conversation_id: str,
        new: Sequence[Item],
        about: Iterable[str | None] = (),
        privacy: str | None = None,
    ) -> None:
        """Append items; `about` names subjects of what they were made from. The conversation is kept as
        private as they are (`privacy`). Raises: NotFound, Erased, StoreOff, StorageFull."""

        def append(db: Any) -> None:
            if not conversations.touch(db, owner, conversation_id, now_ms()):
                raise absent(conversation_id)
            self._add(db, owner, conversation_id, new)
            row = conversations.get(db, owner, conversation_id)
            metadata = with_privacy(row["metadata"] if row is not None else {}, [privacy])
            if row is not None and metadata != row["metadata"]:
                conversations.update(db, owner, conversation_id, metadata=metadata, now_ms=now_ms())

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
        """Delete one item. Gives its conversation. Raises: NotFound, LegalHold, StoreOff."""
        found = await self.conversation(owner, conversation_id)
        await self._archive.delete(DeletionTarget("item", item_id, owner, conversation_id))
        return found

    # ---- helpers

    def _touch(self, db: Any, owner: str, conversation_id: str | None) -> None:
        if conversation_id is not None and not conversations.touch(
            db, owner, conversation_id, now_ms()
        ):
            raise Conflict(
                f"Conversation {conversation_id[:80]!r} was deleted while its answer was made: "
                "create another one.",
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


def _copy(body: Body) -> Body:
    kind = str(body["id"]).partition("_")[0]
    return body | {"id": new_id(kind)}
