"""A trial of the small model with real engines: its margins, and who answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import SMOLLM, TALES_CHAT, DaemonProcess, serving


@pytest.fixture(scope="module")
def daemon(
    tales_dir: Path, smollm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """No model leads by 50 nats, so that every trial fails."""
    routing: dict[str, Any] = {
        "routing.candidates": [TALES_CHAT, SMOLLM],
        "routing.cascade_tokens": 4,
        "routing.cascade_min_margin": 50,
        "routing.cascade_samples": 3,
    }
    state = tmp_path_factory.mktemp("cascade")
    shipped = str(smollm_dir)
    with serving(
        tales_dir, state, shipped_models_dir=shipped, n_ctx=1024, n_seq=2, default_model=TALES_CHAT,
        **routing,
    ) as daemon:  # fmt: skip
        yield daemon


def ask(daemon: DaemonProcess, **fields: Any) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6}
    reply = httpx.post(f"{daemon.url}/v1/chat/completions", json=body | fields, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply


def test_the_first_tokens_are_judged_by_their_margins(daemon):
    told = ask(daemon, route_trace=True).json()
    routing = told["edgeagent"]["routing"]
    assert (told["model"], routing["reason"]) == (SMOLLM, "escalated")
    (judged,) = [step for step in routing["trace"] if step["outcome"] == "is not sure"]
    margins, drawn = judged["detail"].split(", ")
    words = margins.split()
    assert judged["subject"] == f"model {TALES_CHAT}" and words[-1] == "tokens"
    assert 1 <= int(words[-2]) <= 4, "an answer of fewer tokens is judged by all of them"
    assert 0 < float(words[2]) < 50
    assert 0 <= float(drawn.removeprefix("agreement ")) <= 1
    assert told["choices"][0]["logprobs"] is None, "the client asked for none"


def test_in_a_stream_nothing_of_the_trial_is_shown(daemon):
    reply = ask(daemon, stream=True)
    assert f"model={SMOLLM}; reason=escalated" in reply.headers["x-edgeagent-route"]
    assert TALES_CHAT not in reply.text


def test_the_model_is_not_tried_where_the_client_forbids_it_or_has_chosen(daemon):
    kept = ask(daemon, metadata={"escalate": "false"})
    assert kept.json()["model"] == TALES_CHAT
    assert "reason=default" in kept.headers["x-edgeagent-route"]
    assert ask(daemon, model="auto:fast").json()["model"] == TALES_CHAT
    assert ask(daemon, model=TALES_CHAT).json()["model"] == TALES_CHAT
