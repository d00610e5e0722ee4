"""The history before a new answer: the items of a conversation, or of a chain of responses.

A chain is followed back through `previous_id`; a response that belongs to a conversation comes after
everything that was in it at that time. Functions run inside `Database.read`; the caller names the owner,
and rows of other owners are invisible. An incomplete history is an error: nobody would notice that an
answer considered only half of it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from edgeagent.errors import ContextLengthExceeded, NotFound, PreviousNotFound
from edgeagent.store import conversations
from edgeagent.store.connection import StoreConnection
from edgeagent.store.responses import OPEN
from edgeagent.store.row_queries import fetch
from edgeagent.types.ids import RESPONSE_PREFIX

# Far more than any context can hold. Chains whose beginning is truncated may grow without limit.
MAX_BYTES = 8 << 20
MAX_ITEMS = 4096


class History(msgspec.Struct, frozen=True, kw_only=True):
    """`items`: item bodies in API form, oldest first. `subject`: the subject that the history is about.
    `privacy`: the privacy classes that its turns and its conversation were given."""

    thread: str
    subject: str | None
    items: list[dict[str, Any]]
    privacy: list[str] = []


def of_conversation(db: StoreConnection, owner: str, conversation_id: str) -> History:
    """Raises: NotFound; ContextLengthExceeded for a conversation that is far too long."""
    found = conversations.get(db, owner, conversation_id)
    if found is None:
        raise NotFound(
            f"Conversation {conversation_id[:80]!r} is not among what is stored for this key: check the "
            "id.",
            param="conversation",
        )
    where = "conversation_id = :id"
    values = {"owner": owner, "id": conversation_id}
    items = _contents(db, where, values, MAX_BYTES, "conversation")
    privacy = _privacy(db, owner, [], [conversation_id])
    return History(thread=conversation_id, subject=found["subject"], items=items, privacy=privacy)


def of_response(db: StoreConnection, owner: str, response_id: str) -> History:
    """The input and output of `response_id`, and everything before it.

    Raises: PreviousNotFound if the response does not exist, has not ended, or has lost its history;
    ContextLengthExceeded.
    """
    links = _chain(db, owner, response_id)
    if links[-1]["status"] in OPEN:
        raise PreviousNotFound(
            f"Response {response_id!r} has not ended: wait until its status is `completed`, then "
            "continue it.",
            param="previous_response_id",
        )
    items: list[dict[str, Any]] = []
    n_left = MAX_BYTES
    for link in links:
        values = {"owner": owner, "id": link["id"]}
        where = "response_id = :id"
        if link["conversation_id"] is not None:
            where = (
                "conversation_id = :conversation and position <= "
                "(select max(position) from item where response_id = :id)"
            )
            values["conversation"] = link["conversation_id"]
        found = _contents(db, where, values, n_left, "previous_response_id")
        if not found:
            raise _broken(response_id)
        n_left -= sum(len(json.dumps(item, ensure_ascii=False)) for item in found)
        items += found
    if len(items) > MAX_ITEMS or n_left < 0:
        raise _too_long("previous_response_id")
    subjects = [link["subject"] for link in links if link["subject"] is not None]
    last = links[-1]
    return History(
        thread=last["thread"] or last["id"],
        subject=subjects[-1] if subjects else None,
        items=items,
        privacy=_privacy(
            db,
            owner,
            [link["id"] for link in links],
            [link["conversation_id"] for link in links if link["conversation_id"] is not None],
        ),
    )


def privacy_of_items(db: StoreConnection, owner: str, ids: list[str]) -> list[str]:
    """The privacy classes of the turns that some items belong to."""
    rows = fetch(
        db,
        "select response_id, conversation_id from item where owner = :owner and id in "
        "(select value from json_each(:ids))",
        {"owner": owner, "ids": json.dumps(ids)},
    )
    responses = [row["response_id"] for row in rows if row["response_id"] is not None]
    found = [row["conversation_id"] for row in rows if row["conversation_id"] is not None]
    return _privacy(db, owner, responses, found)


def _privacy(
    db: StoreConnection, owner: str, responses: list[str], conversation_ids: list[str]
) -> list[str]:
    """The privacy classes in the metadata of responses, and of conversations and all their responses."""
    rows = fetch(
        db,
        "select json_extract(body, '$.metadata.privacy') as privacy from response "
        "join response_content on response_id = response.id where owner = :owner and "
        "(response.id in (select value from json_each(:responses)) "
        "or conversation_id in (select value from json_each(:conversations))) "
        "union select json_extract(metadata, '$.privacy') from conversation where owner = :owner "
        "and id in (select value from json_each(:conversations))",
        {
            "owner": owner,
            "responses": json.dumps(responses),
            "conversations": json.dumps(conversation_ids),
        },
    )
    return [str(row["privacy"]) for row in rows if row["privacy"] is not None]


def _chain(db: StoreConnection, owner: str, response_id: str) -> list[dict[str, Any]]:
    """The responses from the first one, or from the last that belongs to a conversation, to this one."""
    links: list[dict[str, Any]] = []
    at: str | None = response_id
    while at is not None:
        rows = fetch(
            db,
            "select id, previous_id, conversation_id, status, thread, coalesce(subject, (select "
            "subject from conversation where conversation.id = conversation_id)) as subject "
            "from response where id = :id and owner = :owner",
            {"id": at, "owner": owner},
        )
        if not rows or not at.startswith(RESPONSE_PREFIX):
            raise _absent(response_id) if at == response_id else _broken(response_id)
        links.append(rows[0])
        if len(links) > MAX_ITEMS:
            raise _too_long("previous_response_id")
        at = rows[0]["previous_id"] if rows[0]["conversation_id"] is None else None
    return links[::-1]


def _contents(
    db: StoreConnection, where: str, values: dict[str, Any], n_bytes: int, param: str
) -> list[dict[str, Any]]:
    """The bodies of some items, oldest first. Checks their size before reading them."""
    where = f"item.owner = :owner and {where}"
    joined = "item left join item_content on item_rowid = item.rowid"
    n_items, n_purged, size = fetch(
        db,
        "select count(*) as n, coalesce(sum(body is null), 0) as purged, "
        f"coalesce(sum(octet_length(body)), 0) as size from {joined} where {where}",
        values,
    )[0].values()
    if n_purged:
        raise _broken(values["id"])
    if size > n_bytes or n_items > MAX_ITEMS:
        raise _too_long(param)
    rows = fetch(db, f"select body from {joined} where {where} order by position", values)
    return [json.loads(row["body"]) for row in rows]


def _absent(response_id: str) -> PreviousNotFound:
    return PreviousNotFound(
        f"Previous response with id {response_id[:80]!r} not found: it is not among what is stored for "
        "this key; check the id, and whether it was asked with `store`.",
        param="previous_response_id",
    )


def _broken(what: str) -> PreviousNotFound:
    return PreviousNotFound(
        f"What was said before {what[:80]!r} is no longer whole, since a part of it was deleted or is "
        "over its age: start a new one, or send the history as `input`.",
        param="previous_response_id",
    )


def _too_long(param: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"The history has more than {MAX_BYTES >> 20} MiB or {MAX_ITEMS} items, which no model here can "
        "read: start a new one, or send a shorter history as `input`.",
        param=param,
    )
