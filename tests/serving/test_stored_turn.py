"""The way of a stored response, step by step, over a real store and without HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from edgeagent.errors import (
    ConversationLocked,
    EngineFailed,
    InvalidParameter,
    NotFound,
    PreviousNotFound,
    StoreOff,
)
from edgeagent.serving.background_responses import BackgroundResponse, BackgroundResponses
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.items import shown_message, shown_output
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.prefix_store import PrefixStore
from edgeagent.serving.stored_responses import StoredResponses
from edgeagent.serving.stored_turn import DialogueInput, Turn, TurnInput, TurnService
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.settings.store import StoreSettings
from edgeagent.types.answer import CallDelta, TokenChunk
from tests.serving.fakes import ORIGIN, USAGE, FakeEngines, FakeModels, chooser, said
from tests.store.conftest import opened, secret  # noqa: F401  fixtures

OWNER = ORIGIN.owner


class House:
    """The parts of a daemon that a response passes."""

    def __init__(self, store: Any, *lives: Sequence[Any]) -> None:
        left = iter(lives)
        self.engines = FakeEngines(small=lambda spec: next(left))
        self.archive = Archive(store, is_searchable=False)
        self.conversations = Conversations(self.archive)
        self.background = BackgroundResponses()
        chats = ChatService(self.engines, chooser(FakeModels({"generate": ["small"]})))  # type: ignore[arg-type]
        prefixes = PrefixStore(None, StoreSettings(), lambda model_id: model_id)
        knowledge = KnowledgeBase(self.archive, self.engines, chats.chooser, KnowledgeSettings())  # type: ignore[arg-type]
        self.turns = TurnService(
            chats, self.archive, self.conversations, prefixes, self.background, knowledge
        )
        self.responses = StoredResponses(self.archive, self.conversations, self.background)

    async def whole(self, turn: TurnInput) -> Turn:
        """A response to its end, as the API makes one that is not streamed."""
        made = await self.turns.begin(ORIGIN, turn)
        try:
            await made.answer.begin()
            while chunks := await made.answer.take():
                made.builder.add(chunks)
            if made.is_kept:
                await self.turns.keep(made)
        finally:
            await made.answer.release()
            made.release()
        return made

    async def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message that the engine was asked last."""
        (spec,) = self.engines.clients["small"].specs[-1:]
        return [(m["role"], m["content"]) for m in spec.prompts[0].messages or []]


@pytest.fixture
def store(opened):  # noqa: F811
    return opened()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "store"


def turn(text: str = "Hello", **fields: Any) -> TurnInput:
    body = shown_message("user", [{"type": "input_text", "text": text}])
    dialogue = {
        name: fields.pop(name) for name in ("previous_id", "conversation_id") if name in fields
    }
    items = fields.pop("items", [body])
    metadata = fields.pop("metadata", {})
    return TurnInput(
        chat=ChatInput(model=None, prompts=[], sampling=lambda own: own, metadata=metadata),
        dialogue=DialogueInput(items=items, **dialogue),
        shown={"instructions": None, "tools": []},
        **fields,
    )


async def ended(running: BackgroundResponse) -> list[dict[str, Any]]:
    """All events of a response, once it has ended."""
    n_seen, found = 0, []
    while True:
        events, n_seen = await running.take(n_seen)
        if not events:
            return found
        found += [json.loads(event.data) for event in events]


async def test_a_response_is_on_disk_with_its_items_before_its_end_is_sent(store):
    house = House(store, said("Good day"))
    made = await house.whole(turn(metadata={"subject": "p1"}))
    row = await house.conversations.response(OWNER, made.id)
    assert (row["status"], row["subject"], row["model"]) == ("completed", "p1", "small")
    assert row["output"][0]["content"][0]["text"] == "Good day"
    assert row["body"]["usage"]["total_tokens"] == USAGE.n_prompt + USAGE.n_generated
    assert await house.responses.find(OWNER, made.id) == made.builder.response
    assert house.engines.rows[0].status == 200 and not house.engines.n_leased


async def test_the_next_turn_is_asked_with_what_was_said_before(store):
    house = House(store, said("Good day"), said("Again"))
    first = await house.whole(turn(metadata={"subject": "p1"}))
    second = await house.whole(turn("And you?", previous_id=first.id))
    assert await house.messages() == [
        ("user", "Hello"), ("assistant", "Good day"), ("user", "And you?"),
    ]  # fmt: skip
    assert second.position.thread == first.id
    row = await house.conversations.response(OWNER, second.id)
    assert row["subject"] == "p1", "it was made from what is about them"


async def test_a_response_of_a_conversation_adds_to_it_also_where_it_is_not_stored_itself(store):
    house = House(store, said("Good day"), said("Again"))
    conversation = (await house.conversations.create(OWNER, {}, []))["id"]
    await house.whole(turn(conversation_id=conversation, is_stored=False))
    await house.whole(turn("And you?", conversation_id=conversation))
    assert [role for role, _ in await house.messages()] == ["user", "assistant", "user"]
    history = await house.conversations.history(OWNER, conversation_id=conversation)
    assert history is not None and len(history.items) == 4


async def test_a_conversation_is_answered_in_once_at_a_time_and_free_after_each_ending(store):
    house = House(store, said("Good day"))
    conversation = (await house.conversations.create(OWNER, {}, []))["id"]
    held = await house.turns.begin(ORIGIN, turn(conversation_id=conversation))
    with pytest.raises(ConversationLocked):
        await house.turns.begin(ORIGIN, turn(conversation_id=conversation))
    held.release()
    broken = [shown_output("function_call_output", "call_x", "42")]
    with pytest.raises(InvalidParameter, match="call_x"):
        await house.turns.begin(ORIGIN, turn(items=broken, conversation_id=conversation))
    await house.whole(turn(conversation_id=conversation))


async def test_an_item_named_by_reference_is_asked_and_kept_as_a_copy(store):
    house = House(store, said("Good day"), said("Again"))
    first = await house.whole(turn())
    name = first.dialogue.inputs[0]["id"]
    second = await house.whole(turn(items=[{"type": "item_reference", "id": name}]))
    assert await house.messages() == [("user", "Hello")]
    (copy,) = second.dialogue.inputs
    assert copy["id"] != name and copy["id"].startswith("msg_")
    with pytest.raises(NotFound):
        await house.turns.begin(ORIGIN, turn(items=[{"type": "item_reference", "id": "msg_0"}]))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"previous_id": "resp_0"}, PreviousNotFound),
        ({"conversation_id": "conv_0"}, NotFound),
        ({"items": []}, InvalidParameter),
        ({"is_background": True, "is_stored": False}, InvalidParameter),
    ],
)
async def test_what_cannot_be_answered_is_refused_before_an_engine_is_asked(store, fields, error):
    house = House(store)
    with pytest.raises(error):
        await house.turns.begin(ORIGIN, turn(**fields))
    assert not house.engines.clients["small"].specs


async def test_without_a_store_a_response_is_answered_and_not_kept():
    house = House(None, said("Good day"))
    made = await house.whole(turn())
    assert not made.is_kept and made.builder.response["store"] is False
    with pytest.raises(StoreOff):
        await house.turns.begin(ORIGIN, turn(is_stored=True))


# ---- in the background


async def started(house: House, **fields: Any) -> tuple[Turn, BackgroundResponse, asyncio.Event]:
    made = await house.turns.begin(ORIGIN, turn(is_background=True, **fields))
    over = asyncio.Event()
    return made, await house.turns.start_in_background(made, over.set), over


async def test_a_background_response_is_stored_open_then_with_its_end(store):
    house = House(store, said("Good day"))
    made, running, over = await started(house)
    assert running.show()["status"] in ("queued", "in_progress")
    events = await ended(running)
    await over.wait()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.queued"]
    assert kinds[-1] == "response.completed"
    assert events[-1]["response"] == await house.responses.find(OWNER, made.id)
    row = await house.conversations.response(OWNER, made.id)
    assert (row["status"], row["output"][0]["content"][0]["text"]) == ("completed", "Good day")


async def test_one_that_fails_is_stored_as_failed_with_a_message_for_clients(store):
    house = House(store, [EngineFailed("The step failed.")])
    made, running, over = await started(house)
    events = await ended(running)
    await over.wait()
    assert events[-1]["type"] == "response.failed"
    found = await house.responses.find(OWNER, made.id)
    assert (found["status"], found["error"]["type"]) == ("failed", "engine_failed")


async def test_an_exception_that_nobody_expected_tells_its_client_nothing(store, caplog):
    house = House(store)
    made = await house.turns.begin(ORIGIN, turn(is_background=True))

    def explode(spec: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    house.engines.clients["small"]._script = explode
    events = await ended(await house.turns.start_in_background(made, lambda: None))
    assert "secret" not in json.dumps(events) and "unforeseen ZeroDivisionError" in caplog.text
    assert (await house.responses.find(OWNER, made.id))["error"]["code"] == "server_error"


@pytest.mark.parametrize("is_daemon_ending", [False, True])
async def test_one_that_is_cut_off_keeps_what_it_had(store, is_daemon_ending):
    house = House(store, [TokenChunk(0, "Good "), asyncio.Event()])
    made, running, over = await started(house)
    events, n_seen = await running.take(0)
    while all(event.kind != "response.output_text.delta" for event in events):
        events, n_seen = await running.take(n_seen)
    if is_daemon_ending:
        await house.background.close()
    else:
        await house.responses.cancel(OWNER, made.id)
    await over.wait()
    found = await house.responses.find(OWNER, made.id)
    assert found["status"] == ("failed" if is_daemon_ending else "cancelled")
    assert found["output"][0]["content"][0]["text"] == "Good "
    assert not house.engines.n_leased and house.engines.rows[0].finish == "cancelled"


async def test_one_that_is_deleted_while_it_is_followed_ends_with_an_error_for_who_follows(store):
    house = House(store, said("Good day"))
    made, running, over = await started(house)
    await over.wait()
    await ended(running)
    running.drop()
    events, n_seen = await running.take(1)
    (error,) = [json.loads(event.data) for event in events]
    assert (error["type"], error["code"]) == ("error", "erased")
    assert (await running.take(n_seen))[0] == []
    await house.responses.delete(OWNER, made.id)
    with pytest.raises(NotFound):
        await house.responses.find(OWNER, made.id)


async def test_calls_become_items_whose_result_the_next_turn_brings(store):
    call = [
        TokenChunk(0, "", calls=[CallDelta(0, '{"city":', "weather")]),
        TokenChunk(0, "", "tool_calls", USAGE, calls=[CallDelta(0, '"Rome"}')]),
    ]
    house = House(store, call, said("Sunny"))
    first = await house.whole(turn())
    (item,) = first.builder.response["output"]
    assert (item["type"], item["name"]) == ("function_call", "weather")
    assert json.loads(item["arguments"]) == {"city": "Rome"}
    result = [shown_output("function_call_output", item["call_id"], "21")]
    await house.whole(turn(items=result, previous_id=first.id))
    roles = [role for role, _ in await house.messages()]
    assert roles == ["user", "assistant", "tool"]
