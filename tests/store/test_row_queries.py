"""Conversations, items, answers, transcripts, feedback, requests: each owner sees its own."""

from __future__ import annotations

import asyncio

import pytest

from edgeagent.errors import StorageFull
from edgeagent.store import (
    conversations,
    feedback,
    full_text_search,
    items,
    requests,
    responses,
    row_deletion,
    transcripts,
)
from edgeagent.store.connection import IntegrityError
from edgeagent.store.items import Item
from edgeagent.store.requests import RequestLog, RequestRow
from edgeagent.store.responses import StoredResponse
from edgeagent.store.transcripts import Segment
from edgeagent.types.list_pages import Page

NOW = 1_790_000_000_000


def message(text: str, role: str = "user") -> Item:
    return Item(kind="message", role=role, body={"role": role, "content": text}, plain=text)


@pytest.fixture
def store(opened):
    return opened()


def do(store, fn):
    return store.write(fn).result(10)


def conversation(store, owner: str = "a", subject: str | None = None) -> str:
    made = do(
        store,
        lambda db: conversations.create(
            db, owner, metadata={"k": "v"} | ({"subject": subject} if subject else {}), now_ms=NOW
        ),
    )
    return made["id"]


def add(store, owner: str, conversation_id: str, *texts: str) -> list[str]:
    return do(
        store,
        lambda db: items.add(
            db, owner, [message(t) for t in texts], conversation_id=conversation_id, now_ms=NOW,
            is_searchable=True,
        ),
    )  # fmt: skip


def test_items_keep_the_order_in_which_they_came(store):
    name = conversation(store)
    ids = add(store, "a", name, "one", "two") + add(store, "a", name, "three")
    for is_descending in (False, True):
        seen, after = [], None
        while True:
            page = Page(after, 2, is_descending)
            found = store.read(lambda db, p=page: items.listed(db, "a", "conversation_id", name, p))
            seen += [row["id"] for row in found.rows]
            if not found.has_more:
                break
            after = seen[-1]
        assert seen == (ids[::-1] if is_descending else ids)
    one = store.read(lambda db: items.get(db, "a", "conversation_id", name, ids[1]))
    assert one["body"] == {"role": "user", "content": "two"} and one["position"] == 1


def test_what_is_another_s_is_not_there(store):
    name = conversation(store, "a")
    (item,) = add(store, "a", name, "secret")
    other = Page()

    def look(db):
        return [
            conversations.get(db, "b", name),
            conversations.update(db, "b", name, metadata={}, now_ms=NOW),
            conversations.listed(db, "b", other).rows,
            items.get(db, "b", "conversation_id", name, item),
            items.listed(db, "b", "conversation_id", name, other).rows,
            items.delete(db, "b", "conversation_id", name, item),
            conversations.touch(db, "b", name, NOW),
            conversations.delete(db, "b", name),
            full_text_search.find_items(db, "b", "secret"),
            feedback.has_target(db, "b", item),
        ]

    assert not any(do(store, look))
    assert store.read(lambda db: conversations.get(db, "a", name))["metadata"] == {"k": "v"}
    assert store.read(lambda db: full_text_search.find_items(db, "a", "secret"))[0]["id"] == item


def test_a_conversation_takes_its_items_and_their_search_entries_with_it(store):
    name = conversation(store)
    add(store, "a", name, "quokka")
    do(store, lambda db: db.execute("update conversation set is_held = 1") and None)
    assert do(store, lambda db: conversations.delete(db, "a", name)) is None, "held"
    do(store, lambda db: db.execute("update conversation set is_held = 0") and None)
    assert do(store, lambda db: conversations.delete(db, "a", name)) is True
    assert do(store, lambda db: conversations.delete(db, "a", name)) is False
    for table in ("item", "item_content", "item_fts"):
        left = store.read(lambda db, t=table: db.execute(f"select count(*) from {t}").fetchone()[0])
        assert left == 0, table


def test_a_hold_protects_what_belongs_to_what_is_held(store):
    name = conversation(store)
    (item,) = add(store, "a", name, "evidence")
    kept = response(conversation_id=name)
    do(store, lambda db: responses.put(db, kept, now_ms=NOW, is_searchable=True))
    for table, row in (("conversation", name), ("response", "resp_1")):
        do(store, lambda db, t=table, r=row: hold(db, t, r, 1))
        assert do(store, lambda db: conversations.delete(db, "a", name)) is None
        assert do(store, lambda db: responses.delete(db, "a", "resp_1")) is None
        do(store, lambda db, t=table, r=row: hold(db, t, r, 0))
    do(store, lambda db: hold(db, "conversation", name, 1))
    assert do(store, lambda db: items.delete(db, "a", "conversation_id", name, item)) is None
    do(store, lambda db: hold(db, "conversation", name, 0))
    assert do(store, lambda db: items.delete(db, "a", "conversation_id", name, item)) is True
    assert do(store, lambda db: items.delete(db, "a", "conversation_id", name, item)) is False
    assert store.read(row_deletion.marked) is not None, "the sweep has something to clean up"


def hold(db, table: str, row: str, is_held: int) -> None:
    db.execute(f"update {table} set is_held = ? where id = ?", (is_held, row))


def response(owner: str = "a", **options) -> StoredResponse:
    return StoredResponse(
        **(
            {
                "id": "resp_1", "owner": owner, "model": "m", "status": "completed",
                "body": {"id": "resp_1"}, "items": [message("hello"), message("ho", "assistant")],
            }
            | options
        )
    )  # fmt: skip


def test_an_answer_is_kept_with_its_items_or_not_at_all(store):
    do(store, lambda db: responses.put(db, response(), now_ms=NOW, is_searchable=False))
    found = store.read(lambda db: responses.get(db, "a", "resp_1"))
    assert found["body"] == {"id": "resp_1"} and found["created_ms"] == NOW
    with pytest.raises(IntegrityError):
        do(store, lambda db: responses.put(db, response(), now_ms=NOW, is_searchable=False))
    n_items = store.read(lambda db: db.execute("select count(*) from item").fetchone()[0])
    assert n_items == 2
    assert store.read(lambda db: full_text_search.find_items(db, "a", "hello")) == [], "not indexed"
    assert store.read(lambda db: responses.get(db, "b", "resp_1")) is None
    assert do(store, lambda db: responses.delete(db, "b", "resp_1")) is False
    do(store, lambda db: db.execute("delete from response_content") and None)
    assert store.read(lambda db: responses.get(db, "a", "resp_1"))["body"] is None, "purged"
    assert do(store, lambda db: responses.delete(db, "a", "resp_1")) is True


def test_a_transcript_comes_back_segment_by_segment(store):
    said = [
        Segment(start_s=0.0, end_s=1.5, text="Good morning.", confidence=0.9),
        Segment(start_s=1.5, end_s=2.0, text="Where does it hurt?", body={"words": [1]}),
    ]
    name = do(
        store,
        lambda db: transcripts.add(
            db, "a", said, model="base", audio_s=2.0, now_ms=NOW, is_searchable=True, subject="p1"
        ),
    )
    found = store.read(lambda db: transcripts.get(db, "a", name))
    assert [s["text"] for s in found["segments"]] == [s.text for s in said]
    assert found["segments"][1]["body"] == {"words": [1]}
    (hit,) = store.read(lambda db: full_text_search.find_segments(db, "a", "hurt does"))
    assert (hit["transcript_id"], hit["position"]) == (name, 1)
    assert store.read(lambda db: full_text_search.find_segments(db, "b", "hurt")) == []
    assert store.read(lambda db: transcripts.get(db, "b", name)) is None
    assert do(store, lambda db: transcripts.delete(db, "b", name)) is False
    assert do(store, lambda db: transcripts.delete(db, "a", name)) is True
    assert store.read(lambda db: full_text_search.find_segments(db, "a", "hurt")) == []


def test_feedback_comes_back_in_its_order(store):
    for rating, comment in ((1, "good"), (-1, None)):
        do(
            store,
            lambda db, r=rating, c=comment: feedback.add(
                db, "a", "resp_1", rating=r, comment=c, now_ms=NOW
            ),
        )
    found = store.read(lambda db: feedback.of(db, "a", "resp_1"))
    assert [(row["rating"], row["comment"]) for row in found] == [(1, "good"), (-1, None)]
    assert store.read(lambda db: feedback.of(db, "b", "resp_1")) == []


def row(number: int, **options) -> RequestRow:
    return RequestRow(
        **(
            {
                "id": f"req_{number}", "owner": "a", "key_id": None, "endpoint": "/v1/x", "model": "m",
                "route": "named", "status": 200, "finish": "stop", "n_prompt": 10, "n_cached": 4,
                "n_generated": 5, "queue_ms": 0.0, "ttft_ms": 20.0, "tpot_ms": 5.0, "total_ms": 40.0,
                "created_ms": NOW,
            }
            | options
        )
    )  # fmt: skip


def test_usage_sums_by_day_and_model_of_one_owner(store):
    rows = [row(1), row(2, status=503), row(3, created_ms=NOW + 86_400_000), row(4, owner="b")]
    do(store, lambda db: requests.insert(db, rows))
    do(store, lambda db: requests.insert(db, rows[:1]))  # told twice, kept once
    days = store.read(lambda db: requests.usage(db, "a", since_ms=0, until_ms=1 << 50))
    assert [(d["n_requests"], d["n_failed"], d["n_generated"]) for d in days] == [
        (2, 1, 10),
        (1, 0, 5),
    ]
    everyone = store.read(lambda db: requests.usage(db, None, since_ms=0, until_ms=1 << 50))
    assert sum(d["n_requests"] for d in everyone) == 4
    none = store.read(lambda db: requests.usage(db, "a", since_ms=0, until_ms=NOW))
    assert none == []


async def test_request_rows_gather_and_survive_a_full_disk(store, monkeypatch):
    log = RequestLog(store, flush_s=3600)
    log.start()
    log.add(row(1))
    real = store.write_async

    async def full(fn, **_):
        raise StorageFull("full")

    monkeypatch.setattr(store, "write_async", full)
    await log.flush()
    log.add(row(2))
    monkeypatch.setattr(store, "write_async", real)
    await asyncio.gather(log.close())
    n = store.read(lambda db: db.execute("select count(*) from request").fetchone()[0])
    assert n == 2
    assert store.counts()["n_commits"] == 1
