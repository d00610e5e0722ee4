"""Responses by their id: live ones in the background, and stored ones."""

from __future__ import annotations

from typing import Any

from edgeagent.errors import InvalidParameter
from edgeagent.serving.background_responses import BackgroundResponse, BackgroundResponses
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import INTERRUPTED, Conversations
from edgeagent.serving.items import Body
from edgeagent.store.responses import OPEN


class StoredResponses:
    """Finds, cancels and deletes responses of their owner. Event loop's thread only."""

    def __init__(
        self, archive: Archive, conversations: Conversations, background: BackgroundResponses
    ) -> None:
        self._archive = archive
        self._conversations = conversations
        self._background = background

    async def find(self, owner: str, response_id: str) -> Body:
        """The response object: so far, or as it is stored. Raises: NotFound, StoreOff."""
        live = self._background.live(owner, response_id)
        if live is not None:
            return live.show()
        return response_of_row(await self._conversations.response(owner, response_id))

    async def events(self, owner: str, response_id: str) -> BackgroundResponse:
        """A response whose events are still in memory. Raises: NotFound; InvalidParameter for others."""
        found = self._background.find(owner, response_id)
        if found is None:
            await self._conversations.response(owner, response_id)
            raise InvalidParameter(
                f"The events of {response_id} are no longer kept, or it was not made in the background: "
                "leave `stream` out.",
                param="stream",
            )
        return found

    async def cancel(self, owner: str, response_id: str) -> Body:
        """End a response in the background; one that has ended is only shown.

        Raises: NotFound; InvalidParameter for one that was not made in the background.
        """
        found = await self.find(owner, response_id)
        if not found.get("background"):
            raise InvalidParameter(
                f"{response_id} was not made in the background: close its connection to end a response "
                "that is.",
                param="response_id",
            )
        live = self._background.live(owner, response_id)
        if live is None:
            return found
        await live.cancel()
        return await self.find(owner, response_id)

    async def delete(self, owner: str, response_id: str) -> None:
        """Delete a response with what was asked. Raises: NotFound, LegalHold, StoreOff."""
        await self._conversations.response(owner, response_id)
        await self._background.end(owner, response_id)
        await self._archive.delete_response(owner, response_id)


def response_of_row(row: dict[str, Any]) -> Body:
    """A stored response as it was sent, or what is left of it. One that is open in the store without being
    live was interrupted."""
    body = row["body"]
    if body is None:
        body = {
            "id": row["id"], "object": "response", "created_at": row["created_ms"] // 1000,
            "model": row["model"], "error": None, "incomplete_details": None, "instructions": None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
            "previous_response_id": row["previous_id"], "usage": None, "text": {},
        }  # fmt: skip
    found: Body = body | {"status": row["status"], "output": row["output"]}
    if row["status"] in OPEN:
        found |= {"status": "failed", "error": INTERRUPTED}
    return found
