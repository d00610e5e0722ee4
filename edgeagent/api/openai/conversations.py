"""`/v1/conversations` and their items."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.responses_stored import Include, IncludeList
from edgeagent.api.openai.schemas.conversations import (
    ConversationBody,
    ConversationRequest,
    ItemsRequest,
)
from edgeagent.api.openai.schemas.items import item_bodies
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import DeletionBody, MetadataRequest, StoredList
from edgeagent.api.openai.stored_chats import After, Limit, Order, as_list
from edgeagent.serving.conversations import Conversations
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["conversations"]
_ABSENT = {404: response_doc(ErrorBody, description="Nothing with this id is stored for this key")}


def _shown(row: dict[str, Any]) -> ConversationBody:
    return ConversationBody(
        id=row["id"], created_at=row["created_ms"] // 1000, metadata=row["metadata"]
    )


@post(
    "/v1/conversations",
    operation_class=body_operation(ConversationRequest),
    operation_id="create_conversation",
    summary="Create a conversation",
    tags=_TAGS,
    status_code=200,
    responses={
        409: response_doc(ErrorBody, description="This daemon stores nothing"),
        507: response_doc(ErrorBody, description="The disk is full"),
    },
)
async def create_conversation(
    request: ApiRequest, conversations: Conversations
) -> ConversationBody:
    body = await read_body(request, ConversationRequest)
    owner = caller_of(request).owner
    new = item_bodies(body.items or [])
    return _shown(await conversations.create(owner, body.metadata or {}, new))


@get(
    "/v1/conversations/{conversation_id:str}",
    operation_id="get_conversation",
    summary="Show a conversation",
    tags=_TAGS,
    responses=_ABSENT,
)
async def get_conversation(
    request: ApiRequest, conversations: Conversations, conversation_id: str
) -> ConversationBody:
    return _shown(await conversations.conversation(caller_of(request).owner, conversation_id))


@post(
    "/v1/conversations/{conversation_id:str}",
    operation_class=body_operation(MetadataRequest),
    operation_id="update_conversation",
    summary="Change the metadata of a conversation",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def update_conversation(
    request: ApiRequest, conversations: Conversations, conversation_id: str
) -> ConversationBody:
    body = await read_body(request, MetadataRequest)
    owner = caller_of(request).owner
    return _shown(await conversations.update(owner, conversation_id, body.metadata or {}))


@delete(
    "/v1/conversations/{conversation_id:str}",
    operation_id="delete_conversation",
    summary="Delete a conversation with its items and responses",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def delete_conversation(
    request: ApiRequest, conversations: Conversations, conversation_id: str
) -> DeletionBody:
    await conversations.delete(caller_of(request).owner, conversation_id)
    return DeletionBody(id=conversation_id, object="conversation.deleted")


@post(
    "/v1/conversations/{conversation_id:str}/items",
    operation_class=body_operation(ItemsRequest),
    operation_id="create_items",
    summary="Append items to a conversation",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def create_items(
    request: ApiRequest,
    conversations: Conversations,
    conversation_id: str,
    include_list: IncludeList = None,
) -> StoredList:
    body = await read_body(request, ItemsRequest)
    owner = caller_of(request).owner
    new = await conversations.append(owner, conversation_id, item_bodies(body.items))
    return as_list(new, False)


@get(
    "/v1/conversations/{conversation_id:str}/items",
    operation_id="list_items",
    summary="List the items of a conversation",
    tags=_TAGS,
    responses=_ABSENT,
)
async def list_items(
    request: ApiRequest,
    conversations: Conversations,
    conversation_id: str,
    after: After = None,
    limit: Limit = PAGE,
    order: Order = "desc",
    include: Include = None,
    include_list: IncludeList = None,
) -> StoredList:
    page = Page(after, limit, order == "desc")
    found = await conversations.items(caller_of(request).owner, conversation_id, page)
    return as_list([row["body"] for row in found.rows], found.has_more)


@get(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    operation_id="get_item",
    summary="Show one item of a conversation",
    tags=_TAGS,
    responses=_ABSENT,
)
async def get_item(
    request: ApiRequest,
    conversations: Conversations,
    conversation_id: str,
    item_id: str,
    include: Include = None,
    include_list: IncludeList = None,
) -> dict[str, Any]:
    return await conversations.item(caller_of(request).owner, conversation_id, item_id)


@delete(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    operation_id="delete_item",
    summary="Delete one item of a conversation",
    tags=_TAGS,
    status_code=200,
    responses=_ABSENT,
)
async def delete_item(
    request: ApiRequest, conversations: Conversations, conversation_id: str, item_id: str
) -> ConversationBody:
    owner = caller_of(request).owner
    return _shown(await conversations.delete_item(owner, conversation_id, item_id))


HANDLERS = [
    create_conversation,
    get_conversation,
    update_conversation,
    delete_conversation,
    create_items,
    list_items,
    get_item,
    delete_item,
]
