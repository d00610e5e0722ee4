"""Chats that are asked to be stored, what each request cost, feedback, and search."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from pydantic import ValidationError

from edgeagent.api.admin.data_schemas import EraseRequest
from edgeagent.api.openai.schemas.chat import ChatRequest
from edgeagent.api.openai.schemas.conversations import ConversationRequest
from edgeagent.api.openai.schemas.responses import ResponseRequest
from edgeagent.api.openai.schemas.stored_chats import MetadataRequest
from edgeagent.settings import resolve
from edgeagent.store.database import open_store
from edgeagent.store.sql import scalar
from tests.api.wire import error_of
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

ASK = [
    {"role": "system", "content": "Answer shortly."},
    {"role": "user", "content": "Is a ferry a boat?"},
]


@pytest.fixture(scope="module")
def daemon(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("stored") / "state"
    with serving(tales_dir, state, search=True, request_flush_s=0) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as client:
        yield client


def ask(client: openai.OpenAI, **options):
    return client.chat.completions.create(
        model=TALES_CHAT, messages=ASK, max_tokens=8, temperature=0, **options
    )


def test_a_stored_chat_is_shown_changed_and_deleted(daemon: DaemonProcess, client: openai.OpenAI):
    made = ask(client, store=True, metadata={"ward": "7"})
    shown = client.chat.completions.retrieve(made.id)
    assert shown.choices[0].message.content == made.choices[0].message.content
    assert shown.usage == made.usage
    assert shown.metadata == {"ward": "7"}
    # The client's strict mode knows messages of assistants only.
    with daemon.client(_strict_response_validation=False) as lenient:
        messages = lenient.chat.completions.messages.list(made.id).data
    assert [(m.role, m.content) for m in messages] == [(m["role"], m["content"]) for m in ASK]
    client.chat.completions.update(made.id, metadata={"ward": "8"})
    assert client.chat.completions.retrieve(made.id).metadata == {"ward": "8"}
    assert made.id in [found.id for found in client.chat.completions.list(order="desc").data]
    assert client.chat.completions.delete(made.id).deleted
    for call in (
        client.chat.completions.retrieve,
        client.chat.completions.delete,
        client.chat.completions.messages.list,
    ):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_stored_calls_and_results_are_items_of_their_own(
    daemon: DaemonProcess, client: openai.OpenAI
):
    tools = [{"type": "function", "function": {"name": "dim_the_zoetrope"}}]
    options = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    made = client.chat.completions.create(
        model=TALES_CHAT, messages=ASK, max_tokens=40, store=True, stream=True, **options
    )
    chunks = list(made)
    shown = client.chat.completions.retrieve(chunks[0].id).choices[0].message
    (call,) = shown.tool_calls
    ids = [c.choices[0].delta.tool_calls[0].id for c in chunks if c.choices[0].delta.tool_calls]
    assert call.id == ids[0] and shown.content is None
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is dimmed."}
    history = [*ASK, shown.model_dump(exclude_none=True), result]
    again = client.chat.completions.create(
        model=TALES_CHAT, messages=history, max_tokens=2, tools=tools, store=True
    )
    messages = httpx.get(f"{daemon.url}/v1/chat/completions/{again.id}/messages").json()["data"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[2]["tool_calls"][0]["id"] == messages[3]["tool_call_id"] == call.id
    found = httpx.get(f"{daemon.url}/v1/search", params={"q": "zoetrope"}).json()["data"]
    assert {row["response_id"] for row in found} == {chunks[0].id, again.id}


def test_a_streamed_chat_is_stored_before_its_end_is_sent(client: openai.OpenAI):
    chunks = list(ask(client, store=True, stream=True))
    shown = client.chat.completions.retrieve(chunks[0].id)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert shown.choices[0].message.content == streamed


def test_a_chat_that_did_not_ask_for_it_is_not_stored(client: openai.OpenAI):
    made = ask(client)
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.retrieve(made.id)
    assert made.id in caught.value.message


def test_pages_hold_every_stored_chat_once(client: openai.OpenAI):
    made = [ask(client, store=True).id for _ in range(5)]
    for order in ("asc", "desc"):
        seen = [found.id for found in client.chat.completions.list(limit=2, order=order)]
        assert len(seen) == len(set(seen))
        assert [i for i in seen if i in made] == (made if order == "asc" else made[::-1])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 400),
        ("limit=101", 400),
        ("order=up", 400),
        ("after=nothing", 200),
        ("limit=x", 400),
    ],
)
def test_pages_are_asked_for_within_bounds(daemon: DaemonProcess, query: str, status: int):
    answer = httpx.get(f"{daemon.url}/v1/chat/completions?{query}")
    assert answer.status_code == status
    if status == 400:
        assert error_of(answer.json())["param"] == query.partition("=")[0]
    else:
        assert answer.json()["data"] == []


@pytest.mark.parametrize(
    "metadata", [{"k" * 65: "v"}, {"k": "v" * 513}, {str(i): "" for i in range(17)}, {"k": 1}]
)
def test_metadata_beyond_its_bounds_is_refused(client: openai.OpenAI, metadata: dict):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, store=True, metadata=metadata)
    assert "metadata" in (caught.value.param or "")


def usage_of(daemon: DaemonProcess) -> dict:
    (day,) = httpx.get(f"{daemon.url}/v1/usage").json()["data"] or [{"n_requests": 0}]
    return day


def test_usage_counts_requests_and_tokens(daemon: DaemonProcess, client: openai.OpenAI):
    made = ask(client)
    wait_for(lambda: usage_of(daemon)["n_requests"] > 0)
    before = usage_of(daemon)
    made = ask(client)
    wait_for(lambda: usage_of(daemon)["n_requests"] == before["n_requests"] + 1)
    after = usage_of(daemon)
    assert after["model"] == TALES_CHAT
    assert after["n_generated"] - before["n_generated"] == made.usage.completion_tokens
    assert after["n_prompt"] - before["n_prompt"] == made.usage.prompt_tokens
    assert after["ttft_ms"] > 0 and after["tpot_ms"] > 0
    now = int(time.time())
    empty = httpx.get(f"{daemon.url}/v1/usage?since=0&until=1000000").json()
    assert empty["data"] == [] and empty["until"] == 1_000_000
    assert httpx.get(f"{daemon.url}/v1/usage?since=-1").status_code == 400
    assert (
        httpx.get(f"{daemon.url}/v1/usage?since={now + 60}&until={now + 90}").json()["data"] == []
    )


def test_a_request_that_its_client_left_is_noted_so(daemon: DaemonProcess):
    body = {"messages": ASK, "stream": True, "max_tokens": 2000, "ignore_eos": True}
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=body) as response:
        name = response.headers["x-request-id"]
        next(response.iter_lines())
    wait_for(lambda: f"id={name}" in daemon.log.read_text())
    (line,) = (line for line in daemon.log.read_text().splitlines() if f"id={name}" in line)
    assert "status=499" in line and "finish=cancelled" in line
    noted = dict(field.split("=") for field in line.split() if "=" in field)
    assert int(noted["n_prompt"]) > 5 and int(noted["n_generated"]) > 0


def test_feedback_is_taken_on_what_is_one_s_own(daemon: DaemonProcess, client: openai.OpenAI):
    made = ask(client, store=True)
    body = {"target_id": made.id, "rating": 1, "comment": "Right."}
    given = httpx.post(f"{daemon.url}/v1/feedback", json=body)
    assert given.status_code == 201 and given.json()["rating"] == 1
    for wrong in (
        {"rating": 2},
        {"label": "good"},
        {"correction": 7},
        {"correction": "x" * 100_001},
    ):
        assert httpx.post(f"{daemon.url}/v1/feedback", json=body | wrong).status_code == 400
    more = {"label": "partly", "correction": "Paris"}
    assert httpx.post(f"{daemon.url}/v1/feedback", json=body | more).status_code == 201
    strange = httpx.post(f"{daemon.url}/v1/feedback", json=body | {"target_id": "chatcmpl-0"})
    assert strange.status_code == 404


def test_an_answer_that_is_not_stored_can_be_rated_at_once(daemon: DaemonProcess):
    """Its row waits in the request log, which is written in groups."""
    body = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 2}
    name = httpx.post(f"{daemon.url}/v1/chat/completions", json=body).headers["x-request-id"]
    rating = {"target_id": name, "rating": -1, "correction": "Once upon a time"}
    assert httpx.post(f"{daemon.url}/v1/feedback", json=rating).status_code == 201
    other = rating | {"target_id": "req_000000000000000000000000"}
    assert httpx.post(f"{daemon.url}/v1/feedback", json=other).status_code == 404


def test_search_finds_stored_words_and_nothing_that_was_deleted(
    daemon: DaemonProcess, client: openai.OpenAI
):
    def found(query: str) -> list[str]:
        answer = httpx.get(f"{daemon.url}/v1/search", params={"q": query})
        assert answer.status_code == 200, answer.text
        return [row["response_id"] for row in answer.json()["data"]]

    made = client.chat.completions.create(
        model=TALES_CHAT,
        messages=[{"role": "user", "content": 'The zebrafish said "OR NOT" to NEAR(quixotry)'}],
        max_tokens=2,
        store=True,
    )
    for query in (
        "zebrafish",
        "quixot",
        "NEAR quixotry zebrafish",
        '"OR NOT" AND',
        "the ZEBRAFISH",
    ):
        assert made.id in found(query) or "AND" in query, query
    assert found("zebrafish absent") == []
    assert found("* ) ( \" '") == []
    client.chat.completions.delete(made.id)
    assert found("zebrafish") == []


def test_a_daemon_that_stores_nothing_says_so_and_answers(tales_dir: Path, tmp_path: Path):
    with (
        serving(tales_dir, tmp_path / "state", store="off", is_forked=False) as daemon,
        daemon.client() as client,
    ):
        assert ask(client).choices
        with pytest.raises(openai.ConflictError) as caught:
            ask(client, store=True)
        assert caught.value.code == "store_off"
        assert httpx.get(f"{daemon.url}/v1/usage").status_code == 409
    # Keys have their place in the database all the same.
    with open_store(resolve(flags={"state_dir": tmp_path / "state"}).settings) as store:
        for table in ("request", "response", "response_content", "item", "item_content"):
            n = store.read(lambda db, t=table: scalar(db, f"select count(*) from {t}"))
            assert n == 0, table


def test_what_was_stored_is_there_after_a_kill(tales_dir: Path, tmp_path: Path):
    with serving(tales_dir, tmp_path / "state") as daemon:
        with daemon.client() as client:
            made = ask(client, store=True)
        daemon.process.kill()
        daemon.process.wait()
    with (
        serving(tales_dir, tmp_path / "state", preload=False) as daemon,
        daemon.client() as client,
    ):
        assert client.chat.completions.retrieve(made.id).usage == made.usage


def test_a_full_disk_refuses_what_is_to_be_stored_and_nothing_else(tales_dir: Path, tmp_path: Path):
    # The reserve is what is free now, less a little, and a file takes that little: to the store the
    # disk is full. A file of zeros would do, but must not be sparse.
    free = shutil.disk_usage(tmp_path).free
    slack = min(1 << 30, free // 4)  # other tests write meanwhile
    reserve = free - slack
    ballast = tmp_path / "ballast"
    with (
        serving(tales_dir, tmp_path / "state", store_reserve_bytes=reserve) as daemon,
        daemon.client() as client,
    ):
        kept = ask(client, store=True)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * slack)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client, store=True, stream=stream)
            assert caught.value.status_code == 507 and caught.value.code == "storage_full"
        assert ask(client).choices, "who stores nothing is answered"
        assert client.chat.completions.retrieve(kept.id).id == kept.id, "reads go on"
        assert httpx.get(f"{daemon.url}/health").status_code == 200
        ballast.unlink()
        wait_for(lambda: shutil.disk_usage(tmp_path).free > reserve)
        assert client.chat.completions.retrieve(ask(client, store=True).id)


@pytest.mark.parametrize("subject", ["", " ", "\t\n"])
@pytest.mark.parametrize(
    ("model", "body"),
    [
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}]}),
        (ResponseRequest, {"input": "x"}),
        (ConversationRequest, {}),
        (MetadataRequest, {}),
    ],
)
def test_a_subject_that_names_nobody_is_refused_wherever_one_is_kept(model, body, subject):
    with pytest.raises(ValidationError, match="`subject` is empty"):
        model.model_validate(body | {"metadata": {"subject": subject}})


def test_every_subject_that_is_kept_can_be_erased():
    longest = "x" * 512
    MetadataRequest.model_validate({"metadata": {"subject": longest}})
    assert EraseRequest.model_validate({"subject": longest}).subject == longest
