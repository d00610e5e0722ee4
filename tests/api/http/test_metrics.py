"""`GET /metrics` of a real daemon: what is counted, who may read it, and that clients make no series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for
from tests.serving.test_metrics import samples

CANARY = "zanzibar-canary"
CHAT = {
    "model": TALES_CHAT,
    "messages": [{"role": "user", "content": f"Tell me of {CANARY}"}],
    "max_tokens": 8,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def daemon(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with serving(tales_dir, tmp_path_factory.mktemp("metrics") / "state") as daemon:
        yield daemon


def shown(daemon: DaemonProcess, **headers: str) -> dict[str, float]:
    reply = httpx.get(f"{daemon.url}/metrics", headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(reply.content)


def test_an_answer_is_counted(daemon: DaemonProcess):
    for _ in range(2):
        reply = httpx.post(f"{daemon.url}/v1/chat/completions", json=CHAT)
        assert reply.status_code == 200, reply.text
    found = shown(daemon)
    by_route = f"model_name={TALES_CHAT},route=named"
    assert found[f"edgeagent:time_to_first_token_seconds_count{{{by_route}}}"] == 2
    assert found[f"edgeagent:generation_tokens_total{{model_name={TALES_CHAT}}}"] == 16
    queries = found[f"edgeagent:prefix_cache_queries_total{{model_name={TALES_CHAT}}}"]
    assert 0 < found[f"edgeagent:prefix_cache_hits_total{{model_name={TALES_CHAT}}}"] < queries
    assert found[f"edgeagent:worker_resident_memory_bytes{{model_name={TALES_CHAT}}}"] > 0
    assert found["edgeagent:store_size_bytes{file=database}"] > 0
    # 8 tokens have 7 gaps. The worker reports them with its next heartbeat.
    gaps = f"edgeagent:inter_token_latency_seconds_count{{model_name={TALES_CHAT}}}"
    wait_for(lambda: shown(daemon).get(gaps) == 14)


def test_the_last_requests_are_told_by_counts_and_times(daemon: DaemonProcess):
    def told() -> list[dict[str, Any]]:
        reply = httpx.get(f"{daemon.url}/metrics/requests")
        assert reply.status_code == 200 and CANARY not in reply.text
        return list(reply.json()["data"])

    n_before = len(told())
    reply = httpx.post(f"{daemon.url}/v1/chat/completions", json=CHAT | {"max_tokens": 3})
    assert reply.status_code == 200
    wait_for(lambda: len(told()) == n_before + 1)
    newest = told()[0]
    assert newest["model"] == TALES_CHAT and newest["endpoint"] == "/v1/chat/completions"
    assert newest["status"] == 200 and newest["n_generated"] == 3 and newest["total_ms"] > 0
    assert not {"owner", "key_id", "id"} & newest.keys()


def test_counts_outlive_their_worker(daemon: DaemonProcess):
    name = f"edgeagent:inter_token_latency_seconds_count{{model_name={TALES_CHAT}}}"
    before = shown(daemon)[name]
    (worker,) = daemon.workers()
    worker.kill()
    deaths = f"edgeagent:worker_deaths_total{{model_name={TALES_CHAT}}}"
    wait_for(lambda: shown(daemon).get(deaths) == 1)
    assert shown(daemon)[name] >= before
    daemon.wait_until_ready()


def test_clients_cannot_make_series_or_show_content(daemon: DaemonProcess):
    def names() -> set[str]:
        return set(shown(daemon))

    httpx.post(f"{daemon.url}/v1/chat/completions", json=CHAT | {"model": "no-such"})
    httpx.get(f"{daemon.url}/no/such/path")
    cells = f"edgeagent:kv_cache_usage_perc{{model_name={TALES_CHAT}}}"
    wait_for(lambda: cells in names())  # with the first heartbeat of the new worker
    before = names()
    for i in range(20):
        unknown = CHAT | {"model": f"{CANARY}-{i}"}
        reply = httpx.post(f"{daemon.url}/v1/chat/completions", json=unknown)
        assert reply.status_code == 404
        httpx.get(f"{daemon.url}/{CANARY}/{i}")
    assert names() == before
    assert CANARY not in httpx.get(f"{daemon.url}/metrics").text


def test_refusals_are_counted_by_their_code(daemon: DaemonProcess):
    name = "edgeagent:request_errors_total{code=model_not_found}"
    before = shown(daemon).get(name, 0)
    httpx.post(f"{daemon.url}/v1/chat/completions", json=CHAT | {"model": "no-such"})
    assert shown(daemon)[name] == before + 1


def test_with_keys_the_scope_metrics_is_needed(daemon: DaemonProcess):
    """Runs last: from the first key on, requests need one."""

    def make(scopes: str) -> str:
        arguments = ["--name", scopes, "--scopes", scopes, "--state-dir", daemon.state_dir]
        done = run_here("keys", "create", *arguments)
        assert done.returncode == 0, done.stderr
        return f"Bearer {done.stdout.strip()}"

    reader, chatter = make("metrics"), make("chat,models,data")
    assert httpx.get(f"{daemon.url}/metrics").status_code == 401
    refused = httpx.get(f"{daemon.url}/metrics", headers={"Authorization": chatter})
    assert refused.status_code == 403
    assert shown(daemon, Authorization=reader)
    chat = httpx.post(
        f"{daemon.url}/v1/chat/completions", json=CHAT, headers={"Authorization": reader}
    )
    assert chat.status_code == 403
