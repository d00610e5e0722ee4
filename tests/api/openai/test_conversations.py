"""`/v1/conversations` with the official client: items, answers within, and what outlives a kill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

ASK = {"model": TALES_CHAT, "max_output_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def daemon(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("conversations") / "state"
    with serving(tales_dir, state, search=True) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as client:
        yield client


def texts(client: openai.OpenAI, conversation_id: str) -> list[str]:
    """What stands in a conversation, oldest first, read page by page."""
    items = client.conversations.items.list(conversation_id, order="asc", limit=2)
    return [item.content[0].text for item in items]


def test_a_conversation_is_made_shown_changed_and_deleted(client: openai.OpenAI):
    made = client.conversations.create(metadata={"topic": "boats"})
    assert made.metadata == {"topic": "boats"} and made.object == "conversation"
    assert client.conversations.retrieve(made.id) == made
    assert client.conversations.update(made.id, metadata={"topic": "ships"}).metadata == {
        "topic": "ships"
    }
    gone = client.conversations.delete(made.id)
    assert gone.deleted and gone.object == "conversation.deleted"
    for call in (client.conversations.retrieve, client.conversations.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_items_are_added_listed_shown_and_deleted(client: openai.OpenAI):
    words = [f"line {n}" for n in range(5)]
    made = client.conversations.create(items=[{"role": "user", "content": words[0]}])
    added = client.conversations.items.create(
        made.id, items=[{"role": "user", "content": word} for word in words[1:]]
    )
    assert [item.content[0].text for item in added.data] == words[1:]
    assert texts(client, made.id) == words
    newest = client.conversations.items.list(made.id)
    assert [item.content[0].text for item in newest] == words[::-1], "the newest come first"
    third = added.data[1]
    assert client.conversations.items.retrieve(third.id, conversation_id=made.id) == third
    assert client.conversations.items.delete(third.id, conversation_id=made.id).id == made.id
    assert texts(client, made.id) == [word for word in words if word != words[2]]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(third.id, conversation_id=made.id)
    other = client.conversations.create()
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(added.data[0].id, conversation_id=other.id)


def test_answers_are_given_within_a_conversation(client: openai.OpenAI):
    made = client.conversations.create(items=[{"role": "user", "content": "My dog is Rex."}])
    first = client.responses.create(input="What is my dog called?", conversation=made.id, **ASK)
    assert first.conversation.id == made.id
    assert texts(client, made.id) == [
        "My dog is Rex.", "What is my dog called?", first.output_text,
    ]  # fmt: skip
    second = client.responses.create(input="And his age?", conversation={"id": made.id}, **ASK)
    # The answer may be other tokens when its text is read: where they differ, they are computed anew.
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens - 1
    loose = client.responses.create(input="One more.", conversation=made.id, store=False, **ASK)
    assert texts(client, made.id)[-2:] == ["One more.", loose.output_text]
    # A response may be continued out of its conversation: what came later is not known there.
    aside = client.responses.create(input="Why?", previous_response_id=first.id, **ASK)
    assert aside.conversation is None and len(texts(client, made.id)) == 7
    client.responses.delete(first.id)
    assert len(texts(client, made.id)) == 5, "what was asked and answered has gone"
    client.conversations.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_one_answer_of_a_conversation_is_made_at_a_time(
    daemon: DaemonProcess, client: openai.OpenAI
):
    made = client.conversations.create()
    slow = client.responses.create(
        input="Tell a story.", conversation=made.id, background=True, model=TALES_CHAT,
        max_output_tokens=3000, extra_body={"ignore_eos": True},
    )  # fmt: skip
    with pytest.raises(openai.ConflictError) as caught:
        client.responses.create(input="Hello", conversation=made.id, **ASK)
    assert caught.value.code == "conversation_locked"
    assert caught.value.response.headers["retry-after"] == "1"
    released = threading.Event()

    def cancel() -> None:
        client.responses.cancel(slow.id)
        released.set()

    threading.Timer(0.2, cancel).start()
    with daemon.client(max_retries=10) as patient:
        assert patient.responses.create(input="Hello", conversation=made.id, **ASK).output_text
    assert released.is_set(), "the client came again by itself"


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "", {"items": [{"role": "user", "content": "x"}] * 21}, "items"),
        ("POST", "", {"metadata": {"k": 1}}, "metadata.k"),
        ("POST", "", {"metadata": {"subject": ""}}, "metadata"),
        ("POST", "/{id}", {"metadata": {"subject": " "}}, "metadata"),
        ("POST", "", {"items": [{"type": "surprise"}]}, "input"),
        ("POST", "/{id}/items", {"items": []}, "items"),
        ("GET", "/{id}/items?limit=101", None, "limit"),
        ("GET", "/{id}/items?order=up", None, "order"),
    ],
)
def test_bad_requests_are_refused_by_name(
    daemon: DaemonProcess, client: openai.OpenAI, method: str, path: str, body, param: str
):
    path = path.replace("{id}", client.conversations.create().id)
    answer = httpx.request(method, f"{daemon.url}/v1/conversations{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_kill_costs_no_turn_and_leaves_nothing_in_progress(tales_dir: Path, tmp_path: Path):
    state = tmp_path / "state"
    with serving(tales_dir, state) as daemon:
        with daemon.client() as client:
            made = client.conversations.create()
            turn = client.responses.create(input="I like tea.", conversation=made.id, **ASK)
            slow = client.responses.create(
                input="Tell a story.", background=True, model=TALES_CHAT, max_output_tokens=3000,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            wait_for(lambda: client.responses.retrieve(slow.id).status == "in_progress")
        daemon.process.kill()
        daemon.process.wait()
    with serving(tales_dir, state) as daemon, daemon.client() as client:
        failed = client.responses.retrieve(slow.id)
        assert (failed.status, failed.error.type) == ("failed", "interrupted")
        assert texts(client, made.id) == ["I like tea.", turn.output_text]
        going = client.responses.create(
            input="Tell a story.", background=True, model=TALES_CHAT, max_output_tokens=3000,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        daemon.stop()
    with serving(tales_dir, state, preload=False) as daemon, daemon.client() as client:
        stopped = client.responses.retrieve(going.id)
        assert (stopped.status, stopped.error.type) == ("failed", "interrupted")
