"""Bodies of `/v1/conversations`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import IgnoredField, RequestModel
from edgeagent.api.openai.schemas.items import InputItem
from edgeagent.api.openai.schemas.responses import Includable
from edgeagent.api.openai.schemas.stored_chats import Metadata

MAX_ITEMS = 20  # of one request, which is OpenAI's limit


class ConversationRequest(RequestModel):
    """A new conversation, optionally with items."""

    items: list[InputItem] | None = Field(None, max_length=MAX_ITEMS)
    metadata: Metadata | None = Field(
        None, description="`subject` names the person that the conversation is about"
    )


class ItemsRequest(RequestModel):
    """Items to append."""

    items: list[InputItem] = Field(min_length=1, max_length=MAX_ITEMS)
    include: Annotated[list[Includable] | None, IgnoredField("everything is shown")] = None


class ConversationBody(BodyModel):
    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]
