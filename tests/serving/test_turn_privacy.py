"""What continues a private turn is private."""

from __future__ import annotations

import pytest

from edgeagent.errors import NotFound
from edgeagent.routing.decision import Decision
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.items import shown_message, stored_item
from edgeagent.serving.stored_chats import items_of
from edgeagent.serving.turn_privacy import stored_metadata, strictest, with_privacy
from edgeagent.store.responses import StoredResponse
from edgeagent.types.list_pages import Page
from tests.store.conftest import opened, secret  # noqa: F401  fixtures


@pytest.mark.parametrize(
    ("classes", "expected"),
    [([], "any"), ([None, "any"], "any"), (["any", "site", None], "site"), (["site", "local"], "local"),
     (["secret"], "local")],
)  # fmt: skip
def test_the_strictest_class_counts(classes, expected):
    assert strictest(classes) == expected


@pytest.mark.parametrize(
    ("own", "before", "expected"),
    [(None, [], None), (None, ["any"], None), ("any", [], "any"), (None, ["local"], "local"),
     ("any", ["site"], "site"), ("local", ["site"], "local"), ("site", ["local"], "local"),
     ("wrong", ["any"], "wrong")],
)  # fmt: skip
def test_a_turn_takes_over_the_privacy_of_what_it_continues(own, before, expected):
    metadata = {"a": "b"} | ({"privacy": own} if own is not None else {})
    found = with_privacy(metadata, before)
    assert found.get("privacy") == expected and found["a"] == "b"


def test_a_turn_of_auto_local_is_kept_as_private():
    assert stored_metadata({}, Decision("m", "default", route="auto:local")) == {"privacy": "local"}
    assert stored_metadata({}, Decision("m", "default", route="auto")) == {}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "store"


@pytest.fixture
def conversations(opened):  # noqa: F811
    return Conversations(Archive(opened(), is_searchable=False))


async def privacy_of(conversations, conversation_id):
    return (await conversations.history("ann", conversation_id=conversation_id)).privacy


@pytest.mark.parametrize(
    ("before", "sent", "expected"),
    [("local", {"topic": "x"}, ["local"]), ("local", {"privacy": "any"}, ["local"]),
     ("local", {"privacy": "site"}, ["local"]), ("site", {"privacy": "local"}, ["local"]),
     (None, {"topic": "x"}, []), (None, {"privacy": "site"}, ["site"])],
)  # fmt: skip
async def test_new_metadata_leaves_a_conversation_as_private_as_it_was(
    conversations, before, sent, expected
):
    made = (await conversations.create("ann", {"old": "y"}, []))["id"]
    said = stored_item(shown_message("user", [{"type": "input_text", "text": "hi"}]), is_input=True)
    await conversations.add("ann", made, [said], privacy=before)
    shown = await conversations.update("ann", made, sent)
    privacy = {"privacy": expected[0]} if expected else {}
    assert shown["metadata"] == sent | privacy
    assert await privacy_of(conversations, made) == expected


@pytest.mark.parametrize(
    ("origin", "own", "expected"),
    [("local", {}, ["local"]), ("site", {"privacy": "any"}, ["site"]),
     ("site", {"privacy": "local"}, ["local"]), (None, {}, [])],
)  # fmt: skip
@pytest.mark.parametrize("way", ["create", "append"])
async def test_a_copy_of_a_private_item_makes_its_conversation_as_private(
    conversations, way, origin, own, expected
):
    first = (await conversations.create("ann", {}, []))["id"]
    said = shown_message("user", [{"type": "input_text", "text": "hi"}])
    await conversations.add("ann", first, [stored_item(said, is_input=True)], privacy=origin)
    copied = [{"type": "item_reference", "id": said["id"]}]
    if way == "create":
        made = (await conversations.create("ann", own, copied))["id"]
    else:
        made = (await conversations.create("ann", own, []))["id"]
        await conversations.append("ann", made, copied)
    history = await conversations.history("ann", conversation_id=made)
    assert len(history.items) == 1 and history.privacy == expected
    assert (await conversations.conversation("ann", made))["metadata"].get("privacy") == (
        expected[0] if expected else None
    )


async def test_a_call_of_a_stored_chat_is_no_item_to_copy(conversations):
    """Its id is found by a search; it has no form of an item, and its chat may be relabelled."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    chat = StoredResponse(
        id="chatcmpl-1", owner="ann", model="m", status="completed", body={"metadata": {}},
        items=items_of({"role": "assistant", "content": None, "tool_calls": [call]}),
    )  # fmt: skip
    await conversations._archive.keep(chat)
    rows = await conversations._archive.items(
        "ann", "response_id", "chatcmpl-1", Page(None, 9, False)
    )
    for row in rows.rows:
        with pytest.raises(NotFound, match="send the item itself"):
            await conversations.create("ann", {}, [{"type": "item_reference", "id": row["id"]}])
    assert len(rows.rows) == 2
