"""What was made before an erasure is not stored after it: every way in for content, and no other's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

from edgeagent.errors import Erased
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.items import shown_message
from edgeagent.store import erasure_epochs
from edgeagent.store.erasure_epochs import ContentOrigin
from edgeagent.store.items import Item
from edgeagent.store.ownership import Selector
from edgeagent.store.responses import StoredResponse

SAID = Item(kind="message", role="user", body={"type": "message"}, plain="hello", is_input=True)

BODY = shown_message("user", [{"type": "input_text", "text": "hello"}])


def answer(name: str, **fields: Any) -> StoredResponse:
    given: dict[str, Any] = {
        "id": name, "owner": "ann", "model": "m", "status": "completed", "items": [SAID],
        "body": {"metadata": {}},
    }  # fmt: skip
    return StoredResponse(**(given | fields))


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def conversations(store):
    return Conversations(Archive(store, is_searchable=False))


def erase(store, **who: str) -> None:
    selector = Selector(**who)
    store.write(lambda db: erasure_epochs.advance(db, store.journal.pseudonym, selector)).result()


# What an erasure meant, and whether content of ann about p1 in conversation c is refused after it.
@pytest.mark.parametrize(
    ("who", "is_refused"),
    [
        ({"owner": "ann"}, True),
        ({"owner": "bob"}, False),
        ({"subject": "p1"}, True),
        ({"subject": "p2"}, False),
        ({"owner": "ann", "subject": "p1"}, True),
        ({"owner": "ann", "subject": "p2"}, False),
        ({"owner": "bob", "subject": "p1"}, False),
        ({"conversation": "c"}, True),
        ({"conversation": "d"}, False),
        ({"owner": "ann", "conversation": "c"}, True),
    ],
)
def test_an_erasure_refuses_what_it_meant(store, who, is_refused):
    seen = store.read(erasure_epochs.newest)
    erase(store, **who)
    for mark, expected in (
        (ContentOrigin(seen, "ann", ["p0", "p1"], "c"), is_refused),
        (ContentOrigin(seen + 1, "ann", ["p1"], "c"), False),
        (ContentOrigin(None, "ann", ["p1"], "c"), False),
    ):
        names = store.journal.pseudonym
        with pytest.raises(Erased) if expected else nullcontext():
            store.read(partial(erasure_epochs.check, pseudonym=names, mark=mark))


def test_a_request_older_than_all_that_is_known_is_refused(store, monkeypatch):
    monkeypatch.setattr(erasure_epochs, "MOST_KEPT", 3)
    seen = store.read(erasure_epochs.newest)
    for n in range(5):
        erase(store, owner=f"other {n}")
    assert store.read(lambda db: db.execute("select count(*) from erasure").fetchone()[0]) == 3
    names = store.journal.pseudonym
    with pytest.raises(Erased):
        store.read(lambda db: erasure_epochs.check(db, names, ContentOrigin(seen, "ann")))
    store.read(lambda db: erasure_epochs.check(db, names, ContentOrigin(seen + 2, "ann")))


def test_the_table_of_erasures_holds_no_names(store):
    erase(store, owner="Wilhelmina", subject="Mustermann", conversation="conv_1")
    row = store.read(lambda db: db.execute("select * from erasure").fetchone())
    assert not {"Wilhelmina", "Mustermann", "conv_1"} & set(map(str, row))


WAYS: dict[str, Callable[[Conversations, str], Any]] = {
    "chat": lambda to, _: to._archive.keep(answer("chatcmpl-2")),
    "relabel": lambda to, _: to._archive.relabel("ann", "chatcmpl-1", {"subject": "p1"}),
    "feedback": lambda to, _: to._archive.rate("ann", "chatcmpl-1", 1, "a comment"),
    "response": lambda to, _: to.keep(answer("resp_1")),
    "background": lambda to, _: to.begin(answer("resp_2", status="queued")),
    "conversation": lambda to, _: to.create("ann", {}, [BODY]),
    "metadata": lambda to, c: to.update("ann", c, {"note": "x"}),
    "items": lambda to, c: to.add("ann", c, [SAID]),
}


@pytest.mark.parametrize("way", list(WAYS))
async def test_no_way_in_is_open_to_what_an_erasure_meant(store, conversations, way):
    """The rows are still there, as they are under legal hold: only the epoch can refuse."""
    conversation = (await conversations.create("ann", {}, []))["id"]
    await conversations._archive.keep(answer("chatcmpl-1"))

    async def request() -> None:
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        erase(store, owner="bob")
        await WAYS[way](conversations, conversation)
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        erase(store, owner="ann")
        with pytest.raises(Erased):
            await WAYS[way](conversations, conversation)

    async def once() -> None:
        """Nothing of it is there, and nothing comes."""
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        erase(store, owner="ann")
        before = counts(store)
        with pytest.raises(Erased):
            await WAYS[way](conversations, conversation)
        assert counts(store) == before

    for work in (once, request):
        await asyncio.create_task(work())


def counts(store) -> list[int]:
    tables = ("conversation", "response", "item", "feedback")
    return store.read(
        lambda db: [db.execute(f"select count(*) from {t}").fetchone()[0] for t in tables]
    )


async def test_an_answer_made_from_what_was_said_about_somebody_is_about_them(store, conversations):
    async def request() -> None:
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        erase(store, subject="p1")
        with pytest.raises(Erased):
            await conversations.keep(answer("resp_1", subject="p2"), ["p1"])
        await conversations.keep(answer("resp_2", subject="p2"), ["p3"])

    await asyncio.create_task(request())


async def test_the_end_of_a_background_answer_that_was_deleted_is_refused(conversations):
    await conversations.begin(answer("resp_1", status="queued"))
    await conversations._archive.delete_response("ann", "resp_1")
    with pytest.raises(Erased, match="was deleted while it was being made"):
        await conversations.finish(answer("resp_1"))
