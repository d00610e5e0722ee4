"""Histories: chains and conversations are read whole, or refused."""

from __future__ import annotations

import pytest

from edgeagent.errors import ContextLengthExceeded, NotFound, PreviousNotFound
from edgeagent.store import conversations, history, items, responses, row_deletion
from edgeagent.store.items import Item
from edgeagent.store.responses import StoredResponse

NOW = 1_790_000_000_000


def said(text: str, *, is_input: bool) -> Item:
    return Item(kind="message", body={"type": "message", "text": text}, is_input=is_input)


def turn(db, name: str, *, owner: str = "ann", status: str = "completed", **fields) -> str:
    response = StoredResponse(
        id=f"resp_{name}", owner=owner, model="m", status=status, body={},
        items=[said(f"{name}?", is_input=True), said(f"{name}!", is_input=False)], **fields,
    )  # fmt: skip
    responses.put(db, response, now_ms=NOW, is_searchable=False)
    return response.id


def texts(found: history.History) -> list[str]:
    return [item["text"] for item in found.items]


def test_a_chain_is_read_from_its_beginning(conn):
    one = turn(conn, "a", subject="bed 7")
    two = turn(conn, "b", previous_id=one, thread=one)
    turn(conn, "c", previous_id=one, thread=one)
    found = history.of_response(conn, "ann", two)
    assert texts(found) == ["a?", "a!", "b?", "b!"]
    assert (found.thread, found.subject) == (one, "bed 7")


def test_a_response_of_a_conversation_stands_behind_what_was_there_then(conn):
    made = conversations.create(conn, "ann", metadata={"subject": "bed 7"}, now_ms=NOW)["id"]
    items.add(
        conn, "ann", [said("hello", is_input=True)], conversation_id=made, now_ms=NOW,
        is_searchable=False,
    )  # fmt: skip
    one = turn(conn, "a", conversation_id=made)
    turn(conn, "b", conversation_id=made)
    found = history.of_response(conn, "ann", one)
    assert texts(found) == ["hello", "a?", "a!"]
    assert (found.thread, found.subject) == (made, "bed 7")
    aside = turn(conn, "c", previous_id=one, thread=made)
    assert texts(history.of_response(conn, "ann", aside)) == ["hello", "a?", "a!", "c?", "c!"]
    whole = history.of_conversation(conn, "ann", made)
    assert texts(whole) == ["hello", "a?", "a!", "b?", "b!"] and whole.thread == made


def test_what_is_not_whole_is_not_continued(conn):
    one = turn(conn, "a")
    two = turn(conn, "b", previous_id=one)
    rowid = conn.execute("select min(rowid) from item").fetchone()[0]
    row_deletion.delete_content(conn, "item", [rowid])
    with pytest.raises(PreviousNotFound, match="no longer whole"):
        history.of_response(conn, "ann", two)
    responses.delete(conn, "ann", one)
    with pytest.raises(PreviousNotFound, match="no longer whole"):
        history.of_response(conn, "ann", two)
    for owner, name in (("ann", "resp_nothing"), ("ben", two), ("ann", "chatcmpl-1")):
        with pytest.raises(PreviousNotFound, match="not found"):
            history.of_response(conn, owner, name)
    for status in ("queued", "in_progress"):
        with pytest.raises(PreviousNotFound, match="has not ended"):
            history.of_response(conn, "ann", turn(conn, status, status=status))
    with pytest.raises(NotFound):
        history.of_conversation(conn, "ben", "conv_1")


def test_far_too_much_is_refused_unread(conn, monkeypatch):
    monkeypatch.setattr(history, "MAX_BYTES", 100)
    one = turn(conn, "a" * 20)
    with pytest.raises(ContextLengthExceeded):
        history.of_response(conn, "ann", turn(conn, "b", previous_id=one))


def test_a_chain_cannot_run_in_a_circle(conn):
    one = turn(conn, "a")
    two = turn(conn, "b", previous_id=one)
    # No request can make this; a file that was tampered with could.
    conn.execute("update response set previous_id = ? where id = ?", (two, one))
    with pytest.raises(ContextLengthExceeded):
        history.of_response(conn, "ann", two)


def test_an_open_answer_ends_once_and_only_while_it_is_there(conn):
    def end(name: str) -> bool:
        done = StoredResponse(
            id=f"resp_{name}", owner="ann", model="m", status="completed", body={"n": 1},
            items=[said("done", is_input=False)],
        )  # fmt: skip
        return responses.finish(conn, done, now_ms=NOW, is_searchable=False)

    turn(conn, "a", status="queued")
    assert end("a") and not end("a"), "it has ended"
    assert responses.get(conn, "ann", "resp_a")["status"] == "completed"
    assert [body["text"] for body in items.made(conn, "ann", "resp_a")] == ["a!", "done"]
    turn(conn, "b", status="in_progress")
    responses.delete(conn, "ann", "resp_b")
    assert not end("b") and responses.get(conn, "ann", "resp_b") is None
    turn(conn, "c", status="queued")
    assert responses.fail_open(conn, {"code": "server_error"}) == 1
    found = responses.get(conn, "ann", "resp_c")
    assert found["status"] == found["body"]["status"] == "failed"
    assert found["body"]["error"] == {"code": "server_error"}
