"""`/v1/files` and `/v1/batches` with the official client and a real daemon."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

CHATS = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


def line(custom_id: str, url: str = CHATS, **fields: Any) -> str:
    body = {"model": TALES_CHAT, "max_tokens": 6, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": f"Tale {custom_id}"}]} | fields
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def send(client: openai.OpenAI, *lines: str) -> str:
    data = "\n".join(lines).encode()
    return client.files.create(file=("tales.jsonl", data), purpose="batch").id


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    wait_for(lambda: client.batches.retrieve(batch_id).status in ENDED, 120)
    return client.batches.retrieve(batch_id)


def rows(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_answered_with_output_and_errors(tales_client: openai.OpenAI):
    client = tales_client
    bad = line("bad", temperature=99)
    file_id = send(client, *[line(f"tale-{i}") for i in range(6)], bad)
    batch = client.batches.create(
        input_file_id=file_id, endpoint=CHATS, completion_window="24h", metadata={"night": "1"}
    )
    assert batch.status == "validating" and batch.output_file_id is None
    done = ended(client, batch.id)
    assert done.status == "completed" and done.metadata == {"night": "1"}
    assert done.request_counts.total == 7
    assert (done.request_counts.completed, done.request_counts.failed) == (6, 1)
    answers = {row["custom_id"]: row for row in rows(client, done.output_file_id)}
    assert set(answers) == {f"tale-{i}" for i in range(6)}
    for row in answers.values():
        assert row["error"] is None and row["response"]["status_code"] == 200
        assert row["response"]["body"]["usage"]["completion_tokens"] == 6
    (error,) = rows(client, done.error_file_id)
    assert error["custom_id"] == "bad" and error["response"]["status_code"] == 400
    assert error["response"]["body"]["error"]["param"] == "temperature"
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert done.output_file_id in {file.id for file in client.files.list()}
    assert batch.id in {one.id for one in client.batches.list()}


def test_a_file_that_is_not_sound_fails_the_batch_with_its_lines(tales_client: openai.OpenAI):
    file_id = send(tales_client, line("a"), line("a"), line("b", url="/v1/embeddings"), "{")
    batch = tales_client.batches.create(
        input_file_id=file_id, endpoint=CHATS, completion_window="24h"
    )
    failed = ended(tales_client, batch.id)
    assert failed.status == "failed" and failed.output_file_id is None
    found = [(error.line, error.code) for error in failed.errors.data]
    assert found == [
        (2, "duplicate_custom_id"), (3, "mismatched_url"), (4, "invalid_json_line"),
    ]  # fmt: skip


def test_a_cancelled_batch_keeps_what_is_answered(tales_client: openai.OpenAI):
    client = tales_client
    slow = [line(f"slow-{i}", max_tokens=1500) for i in range(40)]
    batch = client.batches.create(
        input_file_id=send(client, line("quick"), *slow), endpoint=CHATS, completion_window="24h"
    )
    wait_for(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 1, 60)
    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)
    client.batches.cancel(batch.id)
    done = ended(client, batch.id)
    assert done.status == "cancelled" and done.cancelled_at is not None
    answers = {row["custom_id"] for row in rows(client, done.output_file_id)}
    assert "quick" in answers and len(answers) == done.request_counts.completed < 41
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(ended(client, _completed(client)).id)
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


def _completed(client: openai.OpenAI) -> str:
    file_id = send(client, line("one"))
    return client.batches.create(input_file_id=file_id, endpoint=CHATS, completion_window="24h").id


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"endpoint": "/v1/audio/transcriptions"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_batches_that_cannot_be_are_refused(
    tales_daemon: DaemonProcess, tales_client: openai.OpenAI, fields: dict[str, Any], told: str
):
    body = {"input_file_id": send(tales_client, line("a")), "endpoint": CHATS} | fields
    reply = httpx.post(f"{tales_daemon.url}/v1/batches", json=body)
    assert reply.status_code == 400 and told in reply.json()["error"]["message"]


def test_unknown_ids_are_not_found(tales_daemon: DaemonProcess):
    for path in ("/v1/files/file-0", "/v1/files/file-0/content", "/v1/batches/batch_0"):
        assert httpx.get(tales_daemon.url + path).status_code == 404
    body = {"input_file_id": "file-0", "endpoint": CHATS}
    assert httpx.post(f"{tales_daemon.url}/v1/batches", json=body).status_code == 404


def test_uploads_that_are_none_are_refused(tales_client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError, match="no lines"):
        send(tales_client, "")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        tales_client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")


def test_a_batch_goes_on_after_the_daemon_was_killed(tales_dir: Path, tmp_path: Path):
    state = tmp_path / "state"
    names = {f"tale-{i:02}" for i in range(40)}
    with serving(tales_dir, state) as daemon, daemon.client() as client:
        file_id = send(client, *[line(name, max_tokens=40) for name in sorted(names)])
        batch_id = client.batches.create(
            input_file_id=file_id, endpoint=CHATS, completion_window="24h"
        ).id
        wait_for(lambda: client.batches.retrieve(batch_id).request_counts.completed >= 3, 60)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    for path in state.rglob("*"):
        assert not path.is_file() or b"Tale tale-" not in path.read_bytes(), path
    with serving(tales_dir, state) as daemon, daemon.client() as client:
        done = ended(client, batch_id)
        assert done.status == "completed" and done.error_file_id is None
        answers = rows(client, done.output_file_id)
        assert [row["custom_id"] for row in answers] == sorted(names), "each once, in order"
        assert done.request_counts.completed == len(names)
