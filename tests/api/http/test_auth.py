"""Every route against every kind of key, and the ways around that are none.

The daemon's own ASGI application in this process: its routes can be walked, and each request can come
from an address of its own, so that the throttle of failures stays out of the way.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute, WebSocketRoute

from edgeagent.api.http import path_scopes
from edgeagent.api.http.key_limits import FAILURES
from edgeagent.daemon.app import Daemon
from edgeagent.device.configuration import configure
from edgeagent.errors import StartFailed
from edgeagent.serving.conversations import NOTE_READ
from edgeagent.store import audit
from edgeagent.store.database import open_store
from edgeagent.store.key_record import KeySpec, NewKey
from edgeagent.store.keyring import Keyring
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import ALL_SCOPES, KeyLimits
from tests.api.wire import error_of, message_at
from tests.conftest import SMOLLM, wait_for

# Handlers name their parameters as Litestar 2 has it; only a Litestar in this process says so here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning"
)

PEERS = (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in itertools.count())
BODY = {"messages": [{"role": "user", "content": "Hi"}]}


class Calls:
    """Requests to a daemon, each from a new peer unless one is named."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def __call__(
        self, method: str, path: str, secret: str | None = None, *, peer: str | None = None,
        headers: list[tuple[str, str]] | None = None, json: Any = None,
    ) -> httpx.Response:  # fmt: skip
        transport = httpx.ASGITransport(self.daemon.app, client=(peer or next(PEERS), 1))
        sent = list(headers or [])
        if secret is not None:
            sent.append(("Authorization", f"Bearer {secret}"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=sent, json=json)

    def make(self, *scopes: str, **fields: Any) -> NewKey:
        spec = KeySpec(name="test", scopes=frozenset(scopes or ALL_SCOPES), **fields)
        return self.daemon.keyring.create(spec, "test").result()


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Calls]:
    flags = {
        "state_dir": folder / "state", "models_dir": folder / "models", "preload": False,
        "measure_when_idle": False, "n_threads": 1,
    } | settings  # fmt: skip
    daemon = Daemon(configure(flags=flags))
    await daemon.pool.open()
    yield Calls(daemon)
    await daemon.close()


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Calls]:
    """A daemon without keys."""
    async with running(tmp_path) as call:
        yield call


@pytest.fixture(scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    """A daemon that asks for keys, for every test that does not mind which there are."""
    async with running(tmp_path_factory.mktemp("keyed")) as call:
        call.make()
        yield call


def routes(daemon: Daemon) -> list[tuple[str, str]]:
    """Every method and path that Litestar answers, path parameters filled in."""
    found = []
    for route in daemon.api.routes:
        assert isinstance(route, HTTPRoute | WebSocketRoute), f"{route} has no rules"
        path = "".join(
            f"/{part}" if isinstance(part, str) else "/x" for part in route.path_components
        )
        methods = (
            route.methods if isinstance(route, HTTPRoute) else ["GET"]
        )  # it is asked for by GET
        found += [(method, path or "/") for method in methods]
    assert len(found) > 15
    return sorted(found)


async def test_every_route_has_a_rule(keyed: Calls):
    missing = [r for r in routes(keyed.daemon) if path_scopes.need_of(*r) is None]
    assert not missing, f"write a rule into api/http/path_scopes.py for {missing}"


async def test_every_rule_has_a_route(keyed: Calls):
    served = routes(keyed.daemon)
    for rule in path_scopes.RULES:
        assert any(
            rule.method in ("*", method) and path_scopes.is_below(path_scopes.parts(path), rule)
            for method, path in served
        ), rule


async def test_every_route_against_every_kind_of_key(keyed: Calls):
    every = keyed.make()
    expired = keyed.make(expires_ms=now_ms() + 500)
    revoked = keyed.make()
    keyed.daemon.keyring.revoke(revoked.key.id, "test").result()
    wait_for(lambda: now_ms() > expired.key.expires_ms)
    bad = {
        "none": None, "wrong": "ea_" + "x" * 43, "no shape": "none", "empty": "",
        "expired": expired.secret, "revoked": revoked.secret,
        "almost": every.secret[:-1] + ("A" if every.secret[-1] != "A" else "B"),
    }  # fmt: skip
    for method, path in routes(keyed.daemon):
        need = path_scopes.need_of(method, path)
        for kind, secret in bad.items():
            reply = await keyed(method, path, secret)
            if need == "open":
                assert reply.status_code == 200, (method, path, kind)
                continue
            assert reply.status_code == 401, (method, path, kind, reply.text)
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert reply.headers["x-request-id"].startswith("req_")
            if method != "HEAD":
                assert "API key" in message_at(path, reply.json())
        reply = await keyed(method, path, every.secret, json={} if method == "POST" else None)
        assert reply.status_code not in (401, 403, 500), (method, path, reply.text)


async def test_each_scope_opens_its_own_routes_only(keyed: Calls):
    one = {scope: keyed.make(scope).secret for scope in sorted(ALL_SCOPES)}
    others = {scope: keyed.make(*(ALL_SCOPES - {scope})).secret for scope in one}
    for method, path in routes(keyed.daemon):
        need = path_scopes.need_of(method, path)
        if need in ("open", "any key", None):
            for secret in one.values():
                assert (await keyed(method, path, secret)).status_code not in (401, 403)
            continue
        assert (await keyed(method, path, one[need])).status_code not in (401, 403), (method, path)
        reply = await keyed(method, path, others[need])
        assert reply.status_code == 403, (method, path)
        assert f"`{need}`" in message_at(path, reply.json())


@pytest.mark.parametrize(
    "path",
    [
        "//admin/keys", "/admin//keys", "/admin/keys/", "/admin/keys//", "/admin/./keys",
        "/v1/models/../../admin/keys", "/%61dmin/keys", "/admin%2fkeys", "/ADMIN/keys",
        "/admin/keys?x=/health", "/health/../admin/keys", "/schema/../admin/keys", "/admin/keys;x",
        "/admin\\keys", "/admin/keys%00", "/admin/keys%20",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_goes_around_its_rule(keyed: Calls, path):
    """Not normalised by a client: the path goes as it is into the application's scope."""
    admin, chat = keyed.make("admin").secret, keyed.make("chat").secret
    for secret, allowed in ((None, ()), (chat, (403, 404, 405)), (admin, (200, 403, 404, 405))):
        status, body = await raw(keyed, path, secret)
        assert status in (allowed or (401,)), (path, status, body)
        if secret != admin:
            assert admin[-4:] not in body.decode(), "no list of keys"


async def raw(call: Calls, path: str, secret: str | None) -> tuple[int, bytes]:
    """A GET as uvicorn would hand it over."""
    from urllib.parse import unquote

    plain, _, query = path.partition("?")
    headers = [(b"host", b"localhost")]
    if secret is not None:
        headers.append((b"authorization", f"Bearer {secret}".encode()))
    scope: Any = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": "",
        "path": unquote(plain), "raw_path": plain.encode(), "query_string": query.encode(),
        "headers": headers, "client": (next(PEERS), 1), "server": ("localhost", 80), "state": {},
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await call.daemon.app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer {}")], 200),
        ([("authorization", "bearer {}")], 200),
        ([("Authorization", "Bearer  {} ")], 200),
        ([("Authorization", "{}")], 401),
        ([("Authorization", "Basic {}")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Bearer {},{}")], 401),
        ([("Authorization", "Bearer {}"), ("Authorization", "Bearer {}")], 401),
        ([("Authorization", "Bearer nothing"), ("Authorization", "Bearer {}")], 401),
        ([("X-Api-Key", "{}")], 200),
        ([("X-Api-Key", "{}"), ("Authorization", "Bearer nothing")], 401),
        ([("Api-Key", "{}")], 401),
        ([("Cookie", "api_key={}")], 401),
        ([("Proxy-Authorization", "Bearer {}")], 401),
        ([("X-Forwarded-Authorization", "Bearer {}")], 401),
        ([("X-Forwarded-For", "127.0.0.1"), ("X-Real-Ip", "127.0.0.1")], 401),
        ([("X-Forwarded-User", "admin"), ("X-Remote-User", "admin")], 401),
    ],
    ids=str,
)
async def test_a_key_comes_in_an_authorization_header_or_its_own_and_nowhere_else(
    keyed: Calls, headers, status
):
    secret = keyed.make().secret
    filled = [(name, value.format(secret, secret)) for name, value in headers]
    assert (await keyed("GET", "/v1/models", headers=filled)).status_code == status
    assert (await keyed("GET", f"/v1/models?api_key={secret}")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Api-Key", "{}")], 400),
        ([("x-api-key", " {} ")], 400),
        ([("X-Api-Key", "{}"), ("Authorization", "Bearer {}")], 400),
        ([("X-Api-Key", "{}"), ("X-Api-Key", "{}")], 400),
        ([("X-Api-Key", "nothing")], 401),
        ([("X-Api-Key", "")], 401),
        ([("X-Api-Key", "Bearer {}")], 401),
        ([("X-Api-Key", "{}"), ("Authorization", "Bearer nothing")], 401),
        ([("X-Api-Key", "nothing"), ("Authorization", "Bearer {}")], 401),
        ([("X-Api-Key", "{}"), ("Authorization", "Basic {}")], 401),
    ],
    ids=str,
)
async def test_on_anthropics_paths_a_key_may_also_come_in_its_own_header(
    keyed: Calls, headers, status
):
    secret = keyed.make("chat").secret
    filled = [(name, value.format(secret)) for name, value in headers]
    for path in ("/v1/messages", "/v1//messages/count_tokens"):
        reply = await keyed("POST", path, headers=filled, json={})
        assert reply.status_code == status, reply.text
        message_at(path, reply.json())


async def test_what_is_wrong_with_a_key_is_not_told(keyed: Calls):
    revoked, expired = keyed.make(), keyed.make(expires_ms=now_ms() + 500)
    keyed.daemon.keyring.revoke(revoked.key.id, "test").result()
    wait_for(lambda: now_ms() > expired.key.expires_ms)
    replies = [
        await keyed("GET", "/v1/models", secret)
        for secret in (revoked.secret, expired.secret, "ea_" + "x" * 43, "x", "ea_", "é")
        if secret.isascii()
    ]
    assert len({reply.content for reply in replies}) == 1
    assert len({tuple(sorted(set(reply.headers) - {"x-request-id"})) for reply in replies}) == 1
    unknown = await keyed("GET", "/nothing/at/all", revoked.secret)
    assert unknown.content == replies[0].content, "nor which paths there are"


async def test_without_a_key_loopback_is_open_and_from_the_first_on_it_is_not(call: Calls):
    assert (await call("GET", "/v1/models", "none")).status_code == 200
    assert (await call("GET", "/nothing")).status_code == 404
    assert (await call("DELETE", "/v1/models")).status_code == 405
    made = await call("POST", "/admin/keys", json={"name": "first", "scopes": ["chat"]})
    assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
    for path in ("/v1/models", "/ready", "/schema", "/schema/openapi.json"):
        assert (await call("GET", path)).status_code == 401
        assert (await call("GET", path, made.json()["secret"])).status_code in (200, 503)
    assert (await call("GET", "/health")).status_code == 200


async def test_keys_are_made_listed_rotated_and_revoked_over_http(keyed: Calls):
    admin = keyed.make("admin")
    body = {
        "name": "ward 7", "scopes": ["chat", "models"], "owner": "ward-7", "expires_in_s": 3600,
        "limits": {"requests_per_minute": 5}, "tools": ["lamp"],
    }  # fmt: skip
    made = (await keyed("POST", "/admin/keys", admin.secret, json=body)).json()
    assert made["owner"] == "ward-7" and made["scopes"] == ["chat", "models"]
    assert made["expires_at"] - made["created_at"] == 3600 and made["tools"] == ["lamp"]
    assert (await keyed("GET", "/v1/models", made["secret"])).status_code == 200
    listed = await keyed("GET", "/admin/keys", admin.secret)
    assert made["secret"] not in listed.text and admin.secret not in listed.text
    (shown,) = [row for row in listed.json()["data"] if row["id"] == made["id"]]
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    path = f"/admin/keys/{made['id']}"
    new = (await keyed("POST", f"{path}/rotate", admin.secret, json={"grace_s": 60})).json()
    for secret in (made["secret"], new["secret"]):
        assert (await keyed("GET", "/v1/models", secret)).status_code == 200
    assert (await keyed("DELETE", path, admin.secret)).json()["replaced_by"] == new["id"]
    assert (await keyed("GET", "/v1/models", made["secret"])).status_code == 401
    assert (await keyed("GET", "/v1/models", new["secret"])).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["chat"]}, "name"),
        ({"name": "x"}, "scopes"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "scopes": ["chat"], "limits": {"requests_per_hour": 1}}, None),
        ({"name": "x", "scopes": ["chat"], "limits": {"concurrency": 0}}, "limits.concurrency"),
        ({"name": "x", "scopes": ["chat"], "owner": "a b"}, "owner"),
        ({"name": "x", "scopes": ["chat"], "expires_in_s": -1}, "expires_in_s"),
        ({"name": "x", "scopes": ["chat"], "break_glass": True}, "break_glass"),
    ],
)
async def test_a_key_that_cannot_be_is_a_400_that_names_the_field(keyed: Calls, body, param):
    admin = keyed.make("admin").secret
    before = len(keyed.daemon.keyring.all())
    reply = await keyed("POST", "/admin/keys", admin, json=body)
    assert reply.status_code == 400
    assert param is None or error_of(reply.json())["param"] == param
    assert len(keyed.daemon.keyring.all()) == before


async def test_an_unknown_key_is_a_404(call: Calls):
    for method, path in (("DELETE", "/admin/keys/key_x"), ("POST", "/admin/keys/key_x/rotate")):
        reply = await call(method, path, json={} if method == "POST" else None)
        assert reply.status_code == 404 and error_of(reply.json())["code"] == "key_not_found"


async def test_every_use_of_a_sealed_key_is_audited_and_logged(call: Calls, caplog):
    sealed = call.make(is_break_glass=True)
    with caplog.at_level(logging.WARNING, logger="edgeagent"):
        for path in ("/v1/models", "/admin/keys", "/nothing"):
            await call("GET", path, sealed.secret)
    assert caplog.text.count("break_glass_used") == 3 and sealed.secret not in caplog.text
    database = call.daemon.database
    assert database is not None
    rows = database.read(lambda db: audit.page(db, 0, 100))
    assert [(r.actor, r.object) for r in rows if r.action == "key.break_glass"] == [
        (sealed.key.id, f"GET {path}") for path in ("/v1/models", "/admin/keys", "/nothing")
    ]
    refused = await call("POST", f"/admin/keys/{sealed.key.id}/rotate", sealed.secret, json={})
    assert refused.status_code == 403


async def test_a_peer_that_guesses_is_throttled_whatever_it_claims_to_be(call: Calls, caplog):
    good = call.make().secret
    with caplog.at_level(logging.WARNING, logger="edgeagent"):
        replies = [
            await call(
                "GET", "/v1/models", f"ea_{i:043}", peer="192.0.2.7",
                headers=[("X-Forwarded-For", f"198.51.100.{i}"), ("Forwarded", f"for=10.0.0.{i}")],
            )
            for i in range(2 * FAILURES)
        ]  # fmt: skip
    assert [reply.status_code for reply in replies] == [401] * FAILURES + [429] * FAILURES
    assert error_of(replies[-1].json())["code"] == "rate_limit_exceeded"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    assert caplog.text.count("unauthorized") == FAILURES, "the log is no place to flood"
    assert (await call("GET", "/v1/models", good, peer="192.0.2.7")).status_code == 200
    assert (await call("GET", "/v1/models", "x", peer="192.0.2.8")).status_code == 401


async def test_requests_over_the_rate_are_429_and_forwarded_addresses_do_not_help(keyed: Calls):
    limited = keyed.make("chat", limits=KeyLimits(requests_per_minute=3)).secret
    replies = [
        await keyed("GET", "/v1/models", limited, headers=[("X-Forwarded-For", f"10.9.8.{i}")])
        for i in range(6)
    ]
    assert [reply.status_code for reply in replies] == [200] * 3 + [429] * 3
    assert [int(r.headers["x-ratelimit-remaining-requests"]) for r in replies[:3]] == [2, 1, 0]
    error = error_of(replies[-1].json())
    assert error["code"] == "rate_limit_exceeded" and "requests_per_minute" in error["message"]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 20
    assert replies[-1].headers["x-ratelimit-limit-requests"] == "3"
    assert (await keyed("GET", "/v1/models", keyed.make().secret)).status_code == 200


async def test_a_place_is_free_again_however_the_response_ended(keyed: Calls):
    one = keyed.make(limits=KeyLimits(concurrency=1)).secret
    for method, path, body in (
        ("GET", "/v1/models", None), ("GET", "/nothing", None), ("POST", "/v1/completions", {}),
        ("POST", "/v1/chat/completions", BODY), ("DELETE", "/v1/models", None),
    ):  # fmt: skip
        reply = await keyed(method, path, one, json=body)
        assert reply.status_code != 429, (method, path)


async def test_a_place_is_free_again_before_the_last_byte_is_sent(keyed: Calls):
    """The client may send its next request as soon as it has that byte."""
    one = keyed.make(limits=KeyLimits(concurrency=1)).secret
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                seen.append((await keyed("GET", "/v1/models", one)).status_code)
            await send(message)

        await keyed.daemon.app(scope, receive, sending)

    transport = httpx.ASGITransport(app, client=(next(PEERS), 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        bearer = {"Authorization": f"Bearer {one}"}
        assert (await client.get("/v1/models", headers=bearer)).status_code == 200
        assert (await client.get("/v1/usage", headers=bearer)).status_code == 200
    assert seen == [200, 200]


async def test_a_sealed_key_is_ended_on_the_device_only(call: Calls):
    admin, sealed = call.make("admin"), call.make(is_break_glass=True)
    path = f"/admin/keys/{sealed.key.id}"
    for method, where in (("DELETE", path), ("POST", f"{path}/rotate")):
        refused = await call(method, where, admin.secret, json={})
        assert refused.status_code == 403 and "on the device" in message_at(where, refused.json())
    assert (await call("GET", "/v1/models", sealed.secret)).status_code == 200
    call.daemon.keyring.revoke(sealed.key.id, "cli:me").result()
    assert (await call("GET", "/v1/models", sealed.secret)).status_code == 401


async def test_the_first_key_may_be_left_to_the_command_line(tmp_path: Path):
    async with running(tmp_path, first_key="command-line") as call:
        body = {"name": "x", "scopes": ["admin"]}
        refused = await call("POST", "/admin/keys", json=body)
        assert refused.status_code == 403 and "keys create" in refused.json()["error"]["message"]
        assert (await call("GET", "/admin/keys")).json()["data"] == []
        admin = call.make("admin")
        made = await call("POST", "/admin/keys", admin.secret, json=body)
        assert made.status_code == 201


async def test_a_locked_daemon_answers_health_and_nothing_else_until_access_is_reset(
    tmp_path: Path,
):
    async with running(tmp_path) as call:
        old = call.make().secret
    for path in (tmp_path / "state" / "store").glob("edgeagent.db*"):
        path.unlink()
    async with running(tmp_path) as call:
        for secret in (None, old, "ea_" + "x" * 43):
            for method, path in routes(call.daemon):
                status = (await call(method, path, secret)).status_code
                is_open = path_scopes.need_of(method, path) == "open"
                assert (status != 503) if is_open else (status == 503), (method, path)
        body = {"name": "attacker", "scopes": ["admin"]}
        refused = await call("POST", "/admin/keys", json=body)
        assert refused.json()["error"]["code"] == "store_locked"
        assert "reset-access" in refused.json()["error"]["message"]
        made = call.daemon.keyring.reset_access("cli:me", "new", keep_keys=False).result()
        assert made is not None
        assert (await call("GET", "/v1/models")).status_code == 401
        assert (await call("GET", "/v1/models", old)).status_code == 401
        assert (await call("GET", "/admin/keys", made.secret)).status_code == 200


async def test_reads_through_a_shared_owner_are_audited_where_that_is_wanted(tmp_path: Path):
    async with running(tmp_path, audit_reads=True) as call:
        ann, bob, alone = (call.make("chat", owner=owner) for owner in ("ward", "ward", "own"))
        made = await call("POST", "/v1/conversations", ann.secret, json={})
        path = f"/v1/conversations/{made.json()['id']}"
        for key, status in ((bob, 200), (ann, 200), (alone, 404)):
            assert (await call("GET", path, key.secret)).status_code == status
        await call("GET", "/v1//responses/resp_none", bob.secret)
        await call("GET", "/v1/search?q=secretword", bob.secret)
        await call("GET", "/v1/models", bob.secret)
        rows = call.daemon.database.read(
            lambda db: [(r.actor, r.object) for r in audit.rows(db) if r.action == "data.read"]
        )
    assert rows == [
        (bob.key.id, f"GET {path}"), (ann.key.id, f"GET {path}"),
        (bob.key.id, "GET /v1//responses/resp_none"), (bob.key.id, "GET /v1/search"),
    ]  # fmt: skip


async def test_going_on_with_what_another_key_of_the_owner_stored_is_a_read(tmp_path: Path):
    async with running(tmp_path, audit_reads=True) as call:
        ann, bob = (call.make("chat", owner="ward") for _ in range(2))
        said = {"items": [{"role": "user", "content": "The canary sings."}]}
        made = (await call("POST", "/v1/conversations", ann.secret, json=said)).json()["id"]
        path = f"/v1/conversations/{made}"
        items = await call("GET", f"{path}/items", ann.secret)
        item = items.json()["data"][0]["id"]
        named = {"items": [{"type": "item_reference", "id": item}]}
        again = await call("POST", "/v1/conversations", bob.secret, json=named)
        assert (
            "canary"
            in (await call("GET", f"/v1/conversations/{again.json()['id']}/items", ann.secret)).text
        )
        relabelled = await call("POST", path, bob.secret, json={"metadata": {"k": "v"}})
        assert relabelled.status_code == 200
        conversations = call.daemon.conversations
        token = NOTE_READ.set(None)
        assert await conversations.history("ward", conversation_id=made), "no request: not audited"
        NOTE_READ.reset(token)
        rows = call.daemon.database.read(
            lambda db: [r.object for r in audit.rows(db) if r.actor == bob.key.id]
        )
    assert rows == [f"POST /v1/conversations item_reference {item}", f"POST {path}"]


async def test_an_answer_that_goes_on_from_a_stored_one_is_audited_as_a_read(
    smollm_dir: Path, tmp_path: Path
):
    async with running(tmp_path, audit_reads=True, models_dir=smollm_dir) as call:
        ann, bob = (call.make("chat", owner="ward") for _ in range(2))
        made = (await call("POST", "/v1/conversations", ann.secret, json={})).json()["id"]
        ask = {"model": SMOLLM, "input": "Hello"}
        # Neither is there, and the look is noted all the same: as for GET.
        for more in ({"previous_response_id": "resp_none"}, {"conversation": "conv_none"}):
            for path in ("/v1/responses", "/v1/responses/input_tokens"):
                answer = await call("POST", path, bob.secret, json=ask | more)
                assert answer.status_code in (400, 404), answer.text
        rows = call.daemon.database.read(
            lambda db: [r.object for r in audit.rows(db) if r.actor == bob.key.id]
        )
    assert made and rows == [
        "POST /v1/responses previous_response_id resp_none",
        "POST /v1/responses/input_tokens previous_response_id resp_none",
        "POST /v1/responses/input_tokens conversation conv_none",
    ]  # fmt: skip


async def test_reads_are_not_audited_unless_that_is_wanted(call: Calls):
    first, second = call.make(owner="ward"), call.make(owner="ward")
    made = await call("POST", "/v1/conversations", first.secret, json={})
    await call("GET", f"/v1/conversations/{made.json()['id']}", second.secret)
    rows = call.daemon.database.read(lambda db: [r.action for r in audit.rows(db)])
    assert "data.read" not in rows


def test_a_locked_daemon_is_not_served_beyond_this_machine_in_the_clear(tmp_path: Path):
    flags = {"state_dir": tmp_path / "state", "models_dir": tmp_path / "models", "host": "0.0.0.0"}
    store = open_store(configure(flags=flags).settings)
    keyring = Keyring(store, store.files.database, lambda: store)
    keyring.create(KeySpec(name="test", scopes=ALL_SCOPES), "test").result()
    keyring.close()
    store.close()
    (tmp_path / "state" / "store" / "edgeagent.db").write_bytes(b"noise" * 4096)
    with pytest.raises(StartFailed, match="plain HTTP"):
        Daemon(configure(flags=flags))
