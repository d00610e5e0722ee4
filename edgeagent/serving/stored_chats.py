"""Chat completions that their client asked to store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeagent.errors import NotFound
from edgeagent.serving.content_archive import Archive
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse
from edgeagent.store.row_queries import subject_of
from edgeagent.types.ids import CHAT_PREFIX
from edgeagent.types.list_pages import Page, RowPage

Json = dict[str, Any]
CALLS = ("function_call", "custom_tool_call")


class StoredChats:
    """Keeps and shows the chats of their owner. Event loop's thread only."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def check(self) -> None:
        """Call before the answer. Raises: StoreOff; StorageFull while the disk is full."""
        await self._archive.check()

    async def keep(
        self, owner: str, messages: Sequence[Json], completion: Json, metadata: dict[str, str]
    ) -> None:
        """Store the messages of a request and the completion as it is sent. It is on disk when this returns.
        Raises: Erased, StorageFull."""
        asked = [item for message in messages for item in items_of(message, is_input=True)]
        choices = completion["choices"]
        answered = [item for choice in choices for item in items_of(choice["message"])]
        await self._archive.keep(
            StoredResponse(
                id=completion["id"],
                owner=owner,
                subject=subject_of(metadata),
                model=completion["model"],
                status="completed",
                body=completion | {"metadata": metadata},
                items=[*asked, *answered],
            )
        )

    async def find(self, owner: str, chat_id: str) -> Json:
        """A stored completion as it was sent, or what is left of it. Raises: NotFound."""
        return _shown(await self._archive.response(owner, _checked(chat_id)))

    async def listed(self, owner: str, page: Page, model: str | None) -> RowPage:
        found = await self._archive.responses(owner, page, prefix=CHAT_PREFIX, model=model)
        return RowPage([_shown(row) for row in found.rows], found.has_more)

    async def update(self, owner: str, chat_id: str, metadata: dict[str, str]) -> Json:
        """Replace the metadata. Raises: NotFound, Erased."""
        return _shown(await self._archive.relabel(owner, _checked(chat_id), metadata))

    async def delete(self, owner: str, chat_id: str) -> None:
        """Raises: NotFound, LegalHold."""
        await self._archive.delete_response(owner, _checked(chat_id))

    async def messages(self, owner: str, chat_id: str, page: Page) -> RowPage:
        """The messages of the request. Raises: NotFound."""
        await self._archive.response(owner, _checked(chat_id))
        found = await self._archive.items(owner, "response_id", chat_id, page)
        rows = [
            {"id": row["id"]} | (row["body"] or {})
            for row in found.rows
            if row["is_input"] and row["kind"] not in CALLS  # a call is part of its message
        ]
        return RowPage(rows, found.has_more)


def _checked(chat_id: str) -> str:
    """Raises: NotFound for an id that is no chat's."""
    if not chat_id.startswith(CHAT_PREFIX):
        raise NotFound(
            f"{chat_id[:80]!r} is not a chat completion: its id begins with {CHAT_PREFIX}."
        )
    return chat_id


def _shown(row: Json) -> Json:
    if row["body"] is not None:
        return dict(row["body"])
    return {
        "id": row["id"], "object": "chat.completion", "created": row["created_ms"] // 1000,
        "model": row["model"], "choices": [], "metadata": {},
    }  # fmt: skip


def items_of(message: Json, *, is_input: bool = False) -> list[Item]:
    """A message and each of its calls as items: calls are found and counted by theirs. The result of a
    call is an item of its own kind."""
    is_result = message["role"] == "tool"
    plain = message.get("content") or ""
    items = [
        Item(
            kind="function_call_output" if is_result else "message",
            role=message["role"],
            body=message,
            plain=plain,
            is_input=is_input,
        )
    ]
    for call in message.get("tool_calls") or ():
        is_custom = call["type"] == "custom"
        kind, field = (CALLS[1], "input") if is_custom else (CALLS[0], "arguments")
        of = call["custom"] if is_custom else call["function"]
        body = {"type": kind, "call_id": call["id"], "name": of["name"], field: of[field]}
        items.append(
            Item(kind=kind, body=body, plain=f"{of['name']} {of[field]}", is_input=is_input)
        )
    return items
