"""Keys as a client of a real daemon meets them: the official SDK, a real model, the command line beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.api.wire import connect, post, read_reply
from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

HI: list[Any] = [{"role": "user", "content": "Hi"}]
LONG = "The river was wide and the night was cold. " * 6


@pytest.fixture(scope="module")
def daemon(tales_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with serving(tales_dir, tmp_path_factory.mktemp("keyed") / "state", n_seq=2) as daemon:
        yield daemon


def keys_command(daemon: DaemonProcess, *arguments: str) -> str:
    """What `edgeagent keys` prints, beside the running daemon."""
    done = run_here("keys", *arguments, "--state-dir", daemon.state_dir)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def admin(daemon: DaemonProcess) -> str:
    """The first key, made on the command line beside the running daemon."""
    assert httpx.get(f"{daemon.url}/v1/models").status_code == 200
    secret = keys_command(daemon, "create", "--name", "admin", "--scopes", "admin,chat,data,models")
    assert httpx.get(f"{daemon.url}/v1/models").status_code == 401, "it counts at once"
    return secret


@pytest.fixture
def make(daemon: DaemonProcess, admin: str):
    def make(**fields: Any) -> dict[str, Any]:
        body = {"name": "test", "scopes": ["chat"]} | fields
        reply = httpx.post(f"{daemon.url}/admin/keys", json=body, headers=bearer(admin))
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    return make


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def ask(client: openai.OpenAI, content: str = "Hi", n: int = 4, **options: Any):
    return client.chat.completions.create(
        model=TALES_CHAT, messages=[{"role": "user", "content": content}], max_tokens=n,
        extra_body={"ignore_eos": True}, **options,
    )  # fmt: skip


def test_the_sdk_sees_each_refusal_as_its_own_error(daemon: DaemonProcess, make):
    with daemon.client(api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            ask(client)
        assert wrong.value.code == "invalid_api_key" and wrong.value.request_id
    with daemon.client(api_key=make(scopes=["transcribe"])["secret"]) as client:
        with pytest.raises(openai.PermissionDeniedError, match="`chat`") as refused:
            ask(client)
        assert refused.value.code == "insufficient_scope"
        assert client.models.list().data
    with daemon.client(api_key=make()["secret"]) as client:
        assert ask(client).choices[0].message.content


def test_requests_over_the_rate_are_a_rate_limit_error(daemon: DaemonProcess, make):
    secret = make(limits={"requests_per_minute": 2})["secret"]
    with daemon.client(api_key=secret) as client:
        assert ask(client) and ask(client)
        for i in range(3):
            with pytest.raises(openai.RateLimitError) as limited:
                ask(client, extra_headers={"X-Forwarded-For": f"198.51.100.{i}"})
        assert limited.value.code == "rate_limit_exceeded"
        headers = limited.value.response.headers
        assert 1 <= int(headers["retry-after"]) <= 30
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-limit-requests"] == "2"


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_charged_once_they_are_known(daemon: DaemonProcess, make, stream):
    secret = make(limits={"tokens_per_minute": 30})["secret"]
    with daemon.client(api_key=secret) as client:
        reply = client.chat.completions.with_raw_response.create(
            model=TALES_CHAT, messages=HI, max_tokens=300, stream=stream,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        assert reply.headers["x-ratelimit-remaining-tokens"] == "30"
        list(reply.parse()) if stream else reply.parse()
        with pytest.raises(openai.RateLimitError, match="tokens_per_minute"):
            ask(client)


def test_an_answer_that_is_broken_off_is_charged_for_what_came(daemon: DaemonProcess, make):
    secret = make(limits={"tokens_per_minute": 1000, "concurrency": 1})["secret"]
    with daemon.client(api_key=secret) as client:
        with ask(client, n=2000, stream=True) as stream:
            for _, _chunk in zip(range(20), stream, strict=False):
                pass
        wait_for(lambda: remaining(daemon, secret) is not None)
        left = remaining(daemon, secret)
        assert left is not None and left < 990


def remaining(daemon: DaemonProcess, secret: str) -> int | None:
    """Tokens that the key has left; None while it may not even ask."""
    reply = httpx.get(f"{daemon.url}/v1/models", headers=bearer(secret))
    if reply.status_code != 200:
        return None
    return int(reply.headers["x-ratelimit-remaining-tokens"])


def test_requests_at_once_are_bounded_and_a_client_that_leaves_gives_its_place_back(
    daemon: DaemonProcess, make
):
    secret = make(limits={"concurrency": 1})["secret"]
    body = {
        "model": TALES_CHAT,
        "messages": HI,
        "stream": True,
        "ignore_eos": True,
        "max_tokens": 2000,
    }
    header = f"Authorization: Bearer {secret}"
    with connect(daemon.url) as first:
        first.sendall(post("/v1/chat/completions", body, header))
        assert b"200" in first.recv(100)
        with connect(daemon.url) as second:
            second.sendall(post("/v1/chat/completions", body, header))
            reply = read_reply(second)
        assert reply.status == 429 and "concurrency" in reply.error["message"]
    url, headers = f"{daemon.url}/v1/models", bearer(secret)
    wait_for(lambda: httpx.get(url, headers=headers).status_code == 200)


def test_a_burst_beyond_the_bounds_has_answers_and_429s_only(daemon: DaemonProcess, make):
    secret = make(limits={"requests_per_minute": 6, "concurrency": 2})["secret"]

    def one(_: int) -> int:
        body = {"model": TALES_CHAT, "messages": HI, "max_tokens": 2}
        return httpx.post(
            f"{daemon.url}/v1/chat/completions", json=body, headers=bearer(secret), timeout=30
        ).status_code

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(one, range(24)))
    assert set(found) == {200, 429} and found.count(200) <= 6


def test_two_keys_do_not_share_prefixes(daemon: DaemonProcess, make):
    """Neither can tell by its time, or by its usage, what the other has asked."""
    ours, theirs = make(owner="same")["secret"], make(owner="same")["secret"]

    def n_cached(secret: str) -> int:
        with daemon.client(api_key=secret) as client:
            usage = ask(client, LONG, n=1).usage
        assert usage is not None and usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    assert n_cached(ours) == 0
    assert n_cached(ours) > 30
    assert n_cached(theirs) == 0
    assert n_cached(theirs) > 30


def test_a_key_that_lists_tools_may_use_no_others(daemon: DaemonProcess, make):
    tools = [{"type": "function", "function": {"name": name}} for name in ("lamp", "door")]
    with daemon.client(api_key=make(tools=["lamp"])["secret"]) as client:
        with pytest.raises(openai.PermissionDeniedError, match="'door'") as refused:
            ask(client, tools=tools)
        assert (refused.value.code, refused.value.param) == ("forbidden", "tools")
        ask(client, tools=tools[:1], n=1)
    with daemon.client(api_key=make()["secret"]) as client:
        ask(client, tools=tools, n=1)


def test_a_revoked_key_ends_its_answer_and_begins_no_other(daemon: DaemonProcess, make):
    key = make()
    with daemon.client(api_key=key["secret"]) as client:
        with ask(client, n=60, stream=True) as stream:
            chunks = iter(stream)
            next(chunks)
            keys_command(daemon, "revoke", key["id"])
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
            last = list(chunks)[-1]
        assert last.choices[0].finish_reason == "length"


def test_no_secret_is_in_the_log_in_an_error_or_on_the_disk(daemon: DaemonProcess, admin, make):
    new = make()["secret"]
    refused = "ea_" + "Canary" * 7 + "x"
    for secret in (new, refused):
        for method, path in (("GET", "/v1/models"), ("POST", "/admin/keys"), ("GET", "/nothing")):
            reply = httpx.request(method, f"{daemon.url}{path}", headers=bearer(secret), json={})
            assert secret[3:20] not in reply.text
    for file in daemon.state_dir.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        for secret in (admin, new, refused):
            assert secret[3:20].encode() not in data, file
    assert "ea_" not in daemon.log.read_text()


def test_the_documentation_shows_the_paths_of_keys(daemon: DaemonProcess, admin):
    schema = httpx.get(f"{daemon.url}/schema/openapi.json", headers=bearer(admin)).json()
    assert {"/admin/keys", "/admin/keys/{key_id}", "/admin/keys/{key_id}/rotate"} <= set(
        schema["paths"]
    )
    assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "requests_per_minute" in json.dumps(schema["paths"]["/admin/keys"]["post"])
