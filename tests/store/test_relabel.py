"""Whom a row is about follows its metadata, and what was thought of it goes with it."""

from __future__ import annotations

import json

import pytest

from edgeagent.store import conversations, feedback, ownership, responses
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.migrations import MIGRATIONS
from edgeagent.store.ownership import Selector
from tests.store.rows import NOW, conversation, item, n_rows, request, transcript


@pytest.fixture
def store(opened):
    return opened()


def do(store, fn):
    return store.write(fn).result(10)


def found(store, subject):
    counts = store.read(lambda db: ownership.counts(db, Selector(subject=subject)))
    return {table: n for table, n in counts.items() if n}


def stored(db, name, metadata, *, conversation_id=None, subject=None):
    kept = responses.StoredResponse(
        id=name, owner="ann", model="m", status="completed", body={"metadata": metadata}, items=[],
        subject=subject, conversation_id=conversation_id,
    )  # fmt: skip
    responses.put(db, kept, now_ms=NOW, is_searchable=False)


def test_a_conversation_that_is_labelled_later_is_found_and_moves_what_is_in_it(store):
    made = do(store, lambda db: conversations.create(db, "ann", metadata={}, now_ms=NOW))["id"]
    do(store, lambda db: stored(db, "resp_plain", {}, conversation_id=made))
    own = {"subject": "p9"}
    do(store, lambda db: stored(db, "resp_own", own, conversation_id=made, subject="p9"))
    for subject, before in (("p7", None), ("p8", "p7"), ("", "p8")):
        metadata = {"subject": subject}
        do(
            store,
            lambda db, m=metadata: conversations.update(db, "ann", made, metadata=m, now_ms=NOW),
        )
        if before is not None:
            assert found(store, before) == {}
        if subject:
            assert found(store, subject) == {"response": 2, "conversation": 1}
    assert found(store, "p9") == {"response": 1}
    assert (
        do(store, lambda db: conversations.update(db, "bob", made, metadata={}, now_ms=NOW)) is None
    )


def test_a_chat_that_is_labelled_anew_is_found_by_the_new_subject_only(store):
    do(store, lambda db: stored(db, "chatcmpl-1", {"subject": "p1"}, subject="p1"))
    row = do(store, lambda db: responses.relabel(db, "ann", "chatcmpl-1", {"subject": "p2"}))
    assert row["body"]["metadata"] == {"subject": "p2"}
    assert (found(store, "p1"), found(store, "p2")) == ({}, {"response": 1})
    do(store, lambda db: responses.relabel(db, "ann", "chatcmpl-1", {}))
    assert found(store, "p2") == {}
    assert do(store, lambda db: responses.relabel(db, "bob", "chatcmpl-1", {})) is None


DELETIONS = {
    "response": ("resp_c", "delete from response where id = 'resp_c'"),
    "conversation": ("conv_c", "delete from conversation where id = 'conv_c'"),
    "response of a conversation": ("resp_c", "delete from conversation where id = 'conv_c'"),
    "item": ("msg_c_0", "delete from item where id = 'msg_c_0'"),
    "item of a conversation": ("msg_c_0", "delete from conversation where id = 'conv_c'"),
    "transcript": ("trans_c", "delete from transcript where id = 'trans_c'"),
    "content of an item": ("msg_c_0", "delete from item_content"),
    "content of a response": ("resp_c", "delete from response_content"),
    "request": ("req_c", "delete from request where id = 'req_c'"),
}


@pytest.mark.parametrize("name", list(DELETIONS))
def test_a_comment_goes_with_what_it_is_about(store, name):
    target, sql = DELETIONS[name]

    def fill(db):
        conversation(db, "c")
        item(db, "other", text="stays")
        transcript(db, "c")
        request(db, "c")
        for about in (target, "msg_other"):
            feedback.add(db, "ann", about, rating=-1, comment="he has diabetes", now_ms=NOW)

    do(store, fill)
    do(store, lambda db: db.execute(sql) and None)
    left = store.read(lambda db: feedback.of(db, "ann", target))
    assert all(row["comment"] is None for row in left)
    assert bool(left) == (name in ("request", "content of an item", "content of a response"))
    kept = store.read(lambda db: feedback.of(db, "ann", "msg_other"))
    assert [row["comment"] for row in kept] == [
        None if name == "content of an item" else "he has diabetes"
    ]


def rated(db, target, comment):
    """Feedback as an older store has it."""
    db.execute(
        "insert into feedback (owner, target_id, rating, created_ms) values ('ann', ?, 1, ?)",
        (target, NOW),
    )
    db.execute("insert into feedback_content values (last_insert_rowid(), ?)", (comment,))


def test_an_older_store_is_put_right(folder, secret):
    """Orphaned comments go; subjects become what the metadata says."""

    def fill(db):
        conversation(db, "gone")
        conversation(db, "set", subject=None)
        conversation(db, "kept", subject="p5")
        request(db, "c")
        for target in ("msg_gone_0", "msg_never", "msg_kept_0", "req_c", "req_never"):
            rated(db, target, f"about {target}")
        db.execute("delete from conversation where id = 'conv_gone'")
        db.execute(
            "update conversation set metadata = ? where id = 'conv_set'",
            (json.dumps({"subject": "p7"}),),
        )
        stored(db, "chatcmpl-1", {"subject": "p9"}, subject="p8")
        stored(db, "chatcmpl-2", {}, subject="p8")

    before = tuple(step for step in MIGRATIONS if step.number < 4)
    with Database(folder, secret, StoreOptions(reserve_bytes=0), before) as store:
        do(store, fill)
        assert n_rows_of(store, "feedback") == 5
    with Database(folder, secret, StoreOptions(reserve_bytes=0)) as store:
        left = store.read(
            lambda db: db.execute(
                "select target_id, body from feedback left join feedback_content "
                "on feedback_rowid = feedback.rowid order by target_id"
            ).fetchall()
        )
        assert [tuple(row) for row in left] == [
            ("msg_kept_0", "about msg_kept_0"), ("req_c", "about req_c"), ("req_never", None),
        ]  # fmt: skip
        assert found(store, "p7") == {"response": 1, "item": 2, "conversation": 1}
        assert (found(store, "p8"), found(store, "p9")) == ({}, {"response": 1})
        assert found(store, "p5")["conversation"] == 1


def n_rows_of(store, table):
    return store.read(n_rows)[table]
