"""Requests of well-known clients (`fixtures/`), sent as they stand but for the name of the model: answered,
and with what they read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import MINILM, SMOLLM, TALES_CHAT, DaemonProcess

FIXTURES = Path(__file__).parent / "fixtures"
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip
RECORDED = [
    pytest.param(recorded, id=f"{path.stem}-{recorded['name'].replace(' ', '-')}")
    for path in sorted(FIXTURES.glob("*.json"))
    for recorded in json.loads(path.read_text())
]


def events(reply: httpx.Response) -> Iterator[Any]:
    """The objects that an answer is made of: one, or those of a stream."""
    kind = reply.headers["content-type"]
    if kind.startswith("text/event-stream"):
        lines = [line for line in reply.text.splitlines() if line.startswith("data: ")]
        yield from (json.loads(line[6:]) for line in lines if line != "data: [DONE]")
    elif kind.startswith("application/x-ndjson"):
        yield from map(json.loads, reply.text.splitlines())
    else:
        yield reply.json()


def at(value: Any, path: str) -> Any:
    """What stands at `choices.0.message`; None where nothing does."""
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


@pytest.mark.process  # its fixtures are chosen as it runs
@pytest.mark.parametrize("recorded", RECORDED)
def test_what_a_client_sends_is_answered_with_what_it_reads(
    request: pytest.FixtureRequest, recorded: dict[str, Any]
):
    body = None if recorded["body"] is None else json.dumps(recorded["body"])
    is_embedding = body is not None and MINILM in body
    daemon: DaemonProcess = request.getfixturevalue(
        "smollm_daemon" if is_embedding else "tales_daemon"
    )
    reply = httpx.request(
        recorded["method"],
        daemon.url + recorded["path"],
        headers=recorded["headers"],
        content=body and body.replace(SMOLLM, TALES_CHAT),
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    found = list(events(reply))
    is_stream = bool(recorded["body"]) and recorded["body"].get("stream", False)
    assert (len(found) > 1) == is_stream
    assert not any(at(event, "error") for event in found)
    for path, kind in recorded["reads"].items():
        values = [value for event in found if (value := at(event, path)) is not None]
        assert values, f"{path} is nowhere in {found[-1]}"
        assert all(isinstance(value, TYPES[kind]) for value in values), (path, values)


def test_every_client_is_recorded():
    assert {path.stem for path in FIXTURES.glob("*.json")} >= {
        "open_webui", "home_assistant_openai", "home_assistant_ollama", "langchain", "openai_agents",
    }  # fmt: skip
