"""Routes in place of models, in every dialect, with two real models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from edgeagent.catalog.install_record import read_record
from edgeagent.routing.training.scope_training import write_scope
from tests.conftest import SMOLLM, DaemonProcess, serving
from tests.routing.scopes import closed_scope

SMALL = "edge-assistant-s"
LONG = "Write about the sea and about ships. " * 2
ASK: list[Any] = [{"role": "user", "content": LONG}]


@pytest.fixture(scope="module")
def daemon(
    shipped_assistant: Path, smollm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    routing: dict[str, Any] = {
        "routing.candidates": [SMALL, SMOLLM],
        "routing.rules": [
            {"id": "long", "match": {"min_chars": 60, "max_chars": 100_000}, "route_to": SMOLLM},
            {"id": "lost", "match": {"keywords_any": ["xyzzy"]}, "route_to": "no-such-model"},
        ],
        "routing.routes": [
            {"name": "writers", "candidates": [SMOLLM]},
            {"name": "closed", "candidates": [SMOLLM], "keys": ["key_of_nobody"]},
        ],
        "models.aliases": {"gpt-4o": "auto"},
    }
    state = tmp_path_factory.mktemp("routes")
    shipped = str(shipped_assistant)
    record = read_record(shipped_assistant / SMALL)
    assert record is not None and record.sha256 is not None
    write_scope(closed_scope(record.sha256, "service"), state / "scope" / f"{SMALL}.scope")
    with serving(
        smollm_dir, state, shipped_models_dir=shipped, n_ctx=1024, n_seq=2, **routing
    ) as daemon:
        yield daemon


def post(daemon: DaemonProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{daemon.url}{path}", json=body, timeout=120)


REQUESTS = [
    ("/v1/chat/completions", {"messages": ASK, "max_tokens": 1}),
    ("/v1/chat/completions", {"messages": ASK, "max_tokens": 1, "stream": True}),
    ("/v1/completions", {"prompt": LONG, "max_tokens": 1}),
    ("/v1/responses", {"input": LONG, "max_output_tokens": 1, "store": False}),
    ("/v1/messages", {"messages": ASK, "max_tokens": 1}),
    ("/api/chat", {"messages": ASK, "options": {"num_predict": 1}, "stream": False}),
    ("/api/generate", {"prompt": LONG, "options": {"num_predict": 1}, "stream": False}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_every_dialect_takes_a_route_and_tells_it_in_a_header(daemon, path, body):
    reply = post(daemon, path, model="auto", **body)
    assert reply.status_code == 200, reply.text
    expected = f"route=auto; model={SMOLLM}; reason=rule; rule=long"
    assert reply.headers["x-edgeagent-route"] == expected
    named = post(daemon, path, model=SMOLLM, **body)
    assert "x-edgeagent-route" not in named.headers


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_the_whole_decision_is_in_the_body_where_it_was_asked_for(daemon, path, body):
    reply = post(daemon, path, model="auto", route_trace=True, **body)
    assert "rule long" in reply.text and '"trace"' in reply.text
    if not body.get("stream"):
        told = reply.json()["edgeagent"]["routing"]
        assert (told["route"], told["model"], told["reason"]) == ("auto", SMOLLM, "rule")
        assert told["trace"][-1]["outcome"] == "chosen"
    plain = post(daemon, path, model="auto", **body)
    assert '"trace"' not in plain.text and '"route":"rule"' in plain.text.replace(" ", "")


def test_an_assistant_model_of_a_route_hands_over_what_it_is_not_sure_of(daemon):
    with daemon.client() as client:
        raw = client.chat.completions.with_raw_response

        def ask(text: str, model: str = "auto") -> tuple[str, str]:
            messages: Any = [{"role": "user", "content": text}]
            domain = {"domain": "assistant"}
            reply = raw.create(model=model, messages=messages, max_tokens=2, metadata=domain)
            return reply.parse().model, reply.headers["x-edgeagent-route"].split("reason=")[1]

        assert ask("set a timer") == (SMALL, "default")
        assert ask("set a timer", "auto:fast") == (SMALL, "preferred")
        assert ask("set a timer", "auto:quality") == (SMOLLM, "preferred")
        assert ask("set a timer", "gpt-4o") == (SMALL, "default")
        assert ask("why do cats purr") == (SMOLLM, "escalated")
        assert ask("xyzzy")[1].endswith("rule=lost")


def test_what_the_scope_gate_finds_out_of_scope_is_handed_on_and_a_damaged_gate_is_left_out(
    daemon, tmp_path_factory
):
    def ask() -> tuple[str, str, Any]:
        given = {"messages": [{"role": "user", "content": "where is my card"}], "max_tokens": 1}
        domain = {"metadata": {"domain": "service"}, "route_trace": True}
        told = post(daemon, "/v1/chat/completions", model="auto", **given, **domain).json()
        routing = told["edgeagent"]["routing"]
        found = [step for step in routing["trace"] if step["subject"].startswith("scope gate")]
        return told["model"], routing["reason"], found

    model, reason, (step,) = ask()
    assert (model, reason) == (SMOLLM, "out_of_scope")
    assert step["outcome"] == "out of scope" and "log-odds" in step["detail"]
    path = daemon.state_dir / "scope" / f"{SMALL}.scope"
    path.write_bytes(b"nonsense")
    assert ask() == (SMALL, "default", [])


def test_routes_are_listed_as_far_as_the_key_may_use_them(daemon):
    with daemon.client() as client:
        listed = {model.id: model.model_extra for model in client.models.list()}
        routes = {name for name, extra in listed.items() if extra["is_route"]}
        assert routes == {"auto", "auto:fast", "auto:quality", "auto:local", "writers"}
        with pytest.raises(openai.PermissionDeniedError, match="may not use the route 'closed'"):
            client.chat.completions.create(model="closed", messages=ASK)


def test_a_wrong_privacy_and_a_giant_prompt_are_refused_as_requests(daemon):
    wrong = post(
        daemon, "/v1/chat/completions", model="auto", messages=ASK, metadata={"privacy": "secret"}
    )
    assert wrong.status_code == 400 and "metadata.privacy" in wrong.text
    giant = [{"role": "user", "content": "x" * 1_000_000}]
    refused = post(daemon, "/v1/chat/completions", model="auto", messages=giant)
    assert refused.status_code in (400, 413), refused.text


def test_routed_requests_are_counted_by_route_and_reason(daemon):
    post(daemon, "/v1/chat/completions", model="writers", messages=ASK, max_tokens=1)
    text = httpx.get(f"{daemon.url}/metrics").text
    expected = f'model_name="{SMOLLM}",reason="rule",route_name="writers",rule="long"'
    assert f"edgeagent:routed_requests_total{{{expected}}} 1.0" in text
