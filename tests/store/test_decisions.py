"""Decisions of routes in the store: whose they are, what they go with, and the feedback that is theirs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from edgeagent.errors import StorageFull
from edgeagent.routing.feature_record import unpacked
from edgeagent.routing.text_features import features
from edgeagent.serving.content_archive import Archive
from edgeagent.store import decisions, erasure_epochs, export, feedback, requests
from edgeagent.store.erasure_hub import ErasureHub
from edgeagent.store.ownership import Selector, counts
from edgeagent.store.requests import RequestLog, RequestRow
from edgeagent.store.retention import STEPS
from tests.store.rows import DAY, NOW, conversation, decision, item, request


@pytest.fixture
def store(opened):
    return opened()


def do(store: Any, fn: Any) -> Any:
    return store.write(fn).result()


def left(store: Any) -> set[str]:
    found = store.read(lambda db: db.execute("select request_id from decision").fetchall())
    return {row[0] for row in found}


SELECTIONS = [
    (Selector(owner="ann"), {"a", "b", "c", "d"}),
    (Selector(owner="bob"), {"e"}),
    (Selector(subject="mr-17"), {"a", "b", "e"}),
    (Selector(owner="ann", subject="mr-17"), {"a", "b"}),
    (Selector(conversation="conv_1"), {"b", "c"}),
    (Selector(conversation="conv_1", subject="nobody"), set()),
]


@pytest.mark.parametrize(("selector", "whose"), SELECTIONS)
def test_a_decision_belongs_to_its_owner_its_subject_and_its_conversation(store, selector, whose):
    def fill(db: Any) -> None:
        conversation(db, 1, subject="mr-17" if selector.subject == "mr-17" else None)
        decision(db, "a", subject="mr-17")
        decision(db, "b", response="resp_1")
        decision(db, "c", conversation="conv_1" if selector.conversation else None)
        decision(db, "d")
        decision(db, "e", owner="bob", subject="mr-17")

    do(store, fill)
    assert store.read(lambda db: counts(db, selector))["decision"] == len(whose)
    page = store.read(lambda db: export.page(db, selector, ("decision", None)))
    assert {row["request_id"] for row in page.rows} == {f"req_{name}" for name in whose}
    text = json.dumps(page.rows)
    assert not whose or ('"large": 0.25' in text and "timer" not in text)


GOES_WITH = [
    ("delete from request where id = 'req_1'", {"req_2"}),
    ("delete from response where id = 'resp_1'", {"req_2"}),
    ("delete from conversation where id = 'conv_1'", {"req_2"}),
    ("delete from response_content where response_id = 'resp_1'", {"req_1", "req_2"}),
]


@pytest.mark.parametrize(("sql", "stays"), GOES_WITH)
def test_a_decision_goes_with_what_it_was_about(store, sql, stays):
    def fill(db: Any) -> None:
        conversation(db, 1, n_items=0)
        for n in (1, 2):
            request(db, n)
            linked = {"response": "resp_1", "conversation": "conv_1"} if n == 1 else {}
            decision(db, n, **linked)

    do(store, fill)
    do(store, lambda db: db.execute(sql) and None)
    assert left(store) == stays
    if len(stays) == 2:
        first, second = store.read(decisions.page)
        assert first["features"] is None and second["features"] is not None


# What is deleted, and which turns keep the features of their text.
FEATURES = [
    ("delete from item where id = 'msg_1_0'", {2, 5, 6}),
    ("delete from item_content where item_rowid = (select rowid from item where id = 'msg_1_0')", {2, 5, 6}),
    ("delete from item where id = 'msg_loose'", {1, 2, 5, 6}),
    ("delete from item_content where item_rowid = (select rowid from item where id = 'msg_loose')",
     {1, 2, 5, 6}),
    ("delete from item where id = 'msg_other'", {1, 2, 3, 4, 5, 6}),
    ("delete from response where id = 'resp_5'", {1, 2, 3, 4}),
    ("delete from response_content where response_id = 'resp_5'", {1, 2, 3, 4}),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "stays"), FEATURES)
def test_the_features_of_a_text_go_with_its_item(store, sql, stays):
    """In a conversation: 1 and 2 have a text of their own, 3 is the result of a tool, 4 is not stored. In a
    chain: 6, the result of a tool, follows 5. Items without a turn are in the conversation and in another."""

    def fill(db: Any) -> None:
        conversation(db, 1)
        conversation(db, 9, response=False, n_items=0)
        item(db, "loose", conversation="conv_1")
        item(db, "other", conversation="conv_9")
        for n, thread in ((2, "conv_1"), (3, "conv_1"), (5, "resp_5"), (6, "resp_5")):
            inside = "conv_1" if thread == "conv_1" else None
            db.execute(
                "insert into response (id, owner, conversation_id, model, status, created_ms, thread) "
                "values (?, 'ann', ?, 'm', 'completed', ?, ?)",
                (f"resp_{n}", inside, NOW, thread),
            )
            db.execute("insert into response_content values (?, '{}')", (f"resp_{n}",))
            item(db, f"{n}_0", conversation=inside, response=f"resp_{n}")
        db.execute("update item set role = null where id in ('msg_3_0', 'msg_6_0')")
        for n in (1, 2, 3, 4, 5, 6):
            linked = "conv_1" if n < 5 else None
            decision(db, n, response=f"resp_{n}", conversation=linked)

    do(store, fill)
    do(store, lambda db: db.execute(sql) and None)
    kept = {row["at"] for row in store.read(decisions.page) if row["features"] is not None}
    assert kept == stays


def test_it_is_as_old_as_its_request_may_be(store):
    do(store, lambda db: decision(db, "old", at=NOW - 11 * DAY))
    do(store, lambda db: decision(db, "new"))
    (step,) = (one for one in STEPS["requests"] if one.table == "decision")
    before = {"before": NOW - 10 * DAY}
    sql = f"delete from decision where {step.where}"
    do(store, lambda db: db.execute(sql, before) and None)
    assert left(store) == {"req_new"}


# target, owner of the feedback, fields: the rating that counts
FEEDBACK = [
    ("req_1", "ann", {"rating": 1}, (1, None, 0)),
    ("resp_1", "ann", {"rating": -1, "correction": "Paris"}, (-1, None, 1)),
    ("msg_1_0", "ann", {"rating": 0, "label": "partly"}, (0, "partly", 0)),
    ("req_1", "bob", {"rating": 1}, (None, None, None)),
    ("req_2", "ann", {"rating": 1}, (None, None, None)),
]


@pytest.mark.parametrize(("target", "owner", "given", "counted"), FEEDBACK)
def test_the_newest_feedback_of_the_owner_counts(store, target, owner, given, counted):
    def fill(db: Any) -> None:
        conversation(db, 1)
        request(db, 1)
        decision(db, 1, response="resp_1")
        earlier = {"rating": -1, "label": "wrong"} if owner == "ann" and target != "req_2" else None
        if earlier:
            feedback.add(db, "ann", "req_1", comment=None, now_ms=NOW, **earlier)
        feedback.add(db, owner, target, comment=None, now_ms=NOW, **given)

    do(store, fill)
    (row,) = store.read(decisions.page)
    assert (row["rating"], row["label"], row["is_corrected"]) == counted
    assert (row["chosen"], json.loads(row["chances"])["large"]) == ("small", 0.25)
    assert row["total_ms"] == 12.5
    assert unpacked(row["features"]).counts == features("set a timer").counts


def test_a_correction_is_content_of_its_feedback(store):
    do(store, lambda db: conversation(db, 1) and None)
    do(store, lambda db: feedback.add(
        db, "ann", "resp_1", rating=-1, comment=None, now_ms=NOW, correction="Paris"))  # fmt: skip
    (row,) = store.read(lambda db: feedback.of(db, "ann", "resp_1"))
    assert (row["correction"], row["comment"]) == ("Paris", None)
    page = store.read(lambda db: export.page(db, Selector(owner="ann"), ("feedback", None)))
    assert page.rows[0]["correction"] == "Paris"
    do(store, lambda db: db.execute("delete from response_content") and None)
    (row,) = store.read(lambda db: feedback.of(db, "ann", "resp_1"))
    assert row["correction"] is None


def logged(n: int, owner: str = "ann", began_s: float | None = None, **fields: Any) -> RequestRow:
    began_s = time.monotonic() if began_s is None else began_s
    row = decisions.DecisionRow(
        request_id=f"req_{n}", owner=owner, route="auto", reason="default", chosen="small",
        answered="small", default_model="small", created_ms=NOW, began_s=began_s, **fields,
    )  # fmt: skip
    return RequestRow(
        id=f"req_{n}", owner=owner, key_id=None, endpoint="chat", model="small", route="default",
        status=200, finish="stop", n_prompt=1, n_cached=0, n_generated=1, queue_ms=0.0, ttft_ms=1.0,
        tpot_ms=1.0, total_ms=2.0, created_ms=NOW, decision=row,
    )  # fmt: skip


@pytest.mark.parametrize(("owner", "stays"), [("ann", {2, 3}), (None, {3}), ("eve", {0, 1, 2, 3})])
async def test_what_waits_and_what_is_answered_during_a_deletion_leaves_no_decision(
    store, owner, stays
):
    log = RequestLog(store, flush_s=60)
    log.add(logged(0))
    log.add(logged(2, owner="bob"))
    log.forget_decisions(owner)
    log.add(logged(1, began_s=time.monotonic() - 5))
    await asyncio.sleep(0)
    log.add(logged(3, began_s=time.monotonic() + 1))
    await log.flush()
    assert left(store) == {f"req_{n}" for n in stays}
    assert store.read(lambda db: db.execute("select count(*) from request").fetchone()[0]) == 4


# What is erased after the requests came and before their rows are written: the requests and the decisions
# that are left.
ERASED = [
    ({"owner": "ann"}, set(), set()),
    ({"subject": "p1"}, {1, 2}, {2}),
    ({"conversation": "conv_1"}, {1, 2}, {2}),
    ({"owner": "ann", "subject": "p2"}, {1, 2}, {1}),
    ({"owner": "bob"}, {1, 2}, {1, 2}),
]


@pytest.mark.parametrize("is_waiting", [True, False])
@pytest.mark.parametrize(("who", "requests_left", "decisions_left"), ERASED)
async def test_nothing_from_before_an_erasure_is_written_after_its_deletions(
    store, who, requests_left, decisions_left, is_waiting
):
    """The deletions have ended, and no place outside of the database has forgotten anything yet."""

    def erase() -> None:
        selector, pseudonym = Selector(**who), store.journal.pseudonym
        do(store, lambda db: erasure_epochs.advance(db, pseudonym, selector))

    async def answers() -> None:
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        about = {1: {"subject": "p1", "conversation_id": "conv_1"}, 2: {"subject": "p2"}}
        if not is_waiting:
            erase()
        for n, fields in about.items():
            log.add(logged(n, **fields))

    log = RequestLog(store, flush_s=60)
    await asyncio.create_task(answers())
    if is_waiting:
        erase()
    await log.flush()
    assert left(store) == {f"req_{n}" for n in decisions_left}
    found = store.read(lambda db: db.execute("select id from request").fetchall())
    assert {row[0] for row in found} == {f"req_{n}" for n in requests_left}


async def test_requests_after_an_erasure_are_written(store):
    async def answer() -> None:
        do(store, lambda db: erasure_epochs.advance(
            db, store.journal.pseudonym, Selector(owner="ann")))  # fmt: skip
        erasure_epochs.SEEN.set(store.read(erasure_epochs.newest))
        log.add(logged(1))

    log = RequestLog(store, flush_s=60)
    await asyncio.create_task(answer())
    await log.flush()
    assert left(store) == {"req_1"}


async def test_what_is_written_between_a_deletion_and_forgetting_has_no_decision_of_it(store):
    """A response is deleted by its client; the log is written before it is told."""
    log = RequestLog(store, flush_s=60)
    hub = ErasureHub()
    hub.register("early", "nothing", lambda _gone: log.flush())
    archive = Archive(store, is_searchable=False, hub=hub, request_log=log)
    do(store, lambda db: conversation(db, 1) and None)
    log.add(logged(1, response_id="resp_1", conversation_id="conv_1"))
    log.add(logged(2, owner="bob"))
    await archive.delete_response("ann", "resp_1")
    assert left(store) == {"req_2"}


async def test_while_the_disk_is_full_rows_wait_without_texts(store, monkeypatch):
    log = RequestLog(store, flush_s=60)
    log.add(logged(0))

    async def fail(fn: Any) -> None:
        raise StorageFull("The disk is full: make room.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_async", fail)
        await log.flush()
    assert log.has("ann", "req_0")
    await log.flush()
    assert left(store) == set()
    assert store.read(lambda db: db.execute("select id from request").fetchone()[0]) == "req_0"


def test_relabelling_a_response_takes_its_decision_along(store):
    do(store, lambda db: conversation(db, 1) and None)
    do(store, lambda db: decision(db, 1, response="resp_1"))
    do(store, lambda db: db.execute("update response set subject = 'p2'") and None)
    assert store.read(lambda db: counts(db, Selector(subject="p2")))["decision"] == 1


def test_the_tokens_of_a_key_are_summed_by_slices_of_time(store):
    def fill(db: Any) -> None:
        for n, at in enumerate((NOW - DAY - 1, NOW - 2000, NOW - 1000, NOW)):
            request(db, n, at=at)
        db.execute("update request set key_id = 'key_ann', n_prompt = 3, n_generated = 4")
        db.execute("update request set energy_j = 1.5 where created_ms = ?", (NOW,))

    do(store, fill)
    found = store.read(lambda db: requests.key_tokens(db, since_ms=NOW - DAY, slice_ms=900_000))
    assert sum(row[3] for row in found) == 21 and {row[:2] for row in found} == {("key_ann", "m")}
    assert sum(row[4] for row in found) == 1.5, "none was measured of the others"
    assert [row[2] for row in found] == sorted(row[2] for row in found)


def test_feedback_is_found_by_its_target(store):
    """By its owner, 20,000 decisions took minutes."""
    values = {"since": 0, "after": 0, "limit": 10}
    sql = f"explain query plan {decisions.PAGE}"
    plan = store.read(lambda db: [row[3] for row in db.execute(sql, values).fetchall()])
    assert any("feedback_target" in step for step in plan)
    assert not any("feedback_owner" in step or step.startswith("SCAN f") for step in plan)


def test_ratings_of_one_answer_stay_few_and_the_newest_counts(store):
    """Who rates an answer over and over fills no disk."""

    def fill(db: Any) -> None:
        decision(db, 1)
        for n in range(feedback.MOST + 5):
            rating = 1 if n % 2 else -1
            feedback.add(db, "ann", "req_1", rating=rating, comment=f"no {n}", now_ms=NOW)
        feedback.add(db, "ann", "req_2", rating=1, comment=None, now_ms=NOW)

    do(store, fill)
    found = store.read(lambda db: feedback.of(db, "ann", "req_1"))
    assert [one["comment"] for one in found] == [f"no {n}" for n in range(5, feedback.MOST + 5)]
    (row,) = store.read(decisions.page)
    assert row["rating"] == found[-1]["rating"] == -1
    n_kept = store.read(lambda db: db.execute("select count(*) from feedback_content").fetchone())
    assert n_kept[0] == feedback.MOST and store.read(lambda db: feedback.of(db, "ann", "req_2"))
