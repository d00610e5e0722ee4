"""Audit, export and erasure over HTTP: each key reaches its owner's data and no other's."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from litestar import Litestar
from litestar.di import Provide
from litestar.testing import TestClient

from edgeagent.api.admin import data
from edgeagent.api.http import errors
from edgeagent.api.http.key_limits import Limiter
from edgeagent.api.http.request_context import context_of
from edgeagent.errors import ErasureRunning, NotFound
from edgeagent.serving.stored_data import StoredData
from edgeagent.settings import Settings
from edgeagent.store import audit, audit_anchor
from edgeagent.store.data_lifecycle import DataLifecycle
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.erasure_hub import ErasureHub
from edgeagent.store.erasure_request import ErasureRequest
from edgeagent.store.ownership import Selector
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import ALL_SCOPES, Caller
from tests.conftest import wait_for
from tests.store.rows import conversation, n_rows, request, transcript

CALLERS = {
    "ann": Caller(key_id="key_ann", owner="ann", scopes=frozenset({"data"})),
    "bob": Caller(key_id="key_bob", owner="bob", scopes=frozenset({"data", "chat"})),
    "chat": Caller(key_id="key_chat", owner="ann", scopes=frozenset({"chat"})),
    "root": Caller(key_id="key_root", owner="root", scopes=ALL_SCOPES),
}


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def store(settings):
    with Database(
        settings.store_dir, Secret(os.urandom(32), "test"), StoreOptions(0.0, 0)
    ) as store:

        def fill(db):
            conversation(db, "a", subject="s", text="the words of ann about her subject")
            transcript(db, "a", subject="s", text="ann dictated some of this")
            conversation(db, "b", owner="bob", subject="s", text="bob spoke about somebody else")
            request(db, "b", owner="bob")

        store.write(fill).result()
        yield store


@pytest.fixture
def told():
    return []


@pytest.fixture
def post(settings, store, told):
    """POST as one of the callers; the layer that finds them is tested elsewhere."""
    hub = ErasureHub()

    async def forget(gone):
        told.append(gone)

    hub.register("prefix caches", "prompts", forget)
    lifecycle = DataLifecycle(store, settings, hub=hub)
    with TestClient(serving(lifecycle)) as client:

        def post(who, path, **body):
            return client.post(path, json=body, headers={"x-who": who})

        post.get = lambda who, path: client.get(path, headers={"x-who": who})  # type: ignore[attr-defined]
        yield post


LIMITER = Limiter()


def serving(lifecycle):
    def identify(app):
        async def layer(scope, receive, send):
            if scope["type"] == "http":
                who = dict(scope["headers"])[b"x-who"].decode()
                context = context_of(scope)
                context.caller, context.admission = CALLERS[who], LIMITER.admit(CALLERS[who])
            await app(scope, receive, send)

        return layer

    return Litestar(
        data.HANDLERS,
        middleware=[identify],
        dependencies={"stored_data": Provide(lambda: StoredData(lifecycle), sync_to_thread=False)},
        exception_handlers={Exception: errors.respond},
    )


def test_an_owner_exports_what_is_hers(post):
    response = post("ann", "/admin/export")
    assert response.status_code == 200
    document = response.json()
    assert document["what"] == {"owner": "ann"}
    assert [row["id"] for row in document["conversation"]] == ["conv_a"]
    assert "bob" not in json.dumps(document)
    assert post("root", "/admin/export", subject="s").json()["conversation"][1]["owner"] == "bob"


@pytest.mark.parametrize("path", ["/admin/export", "/admin/erase"])
@pytest.mark.parametrize(
    ("who", "body", "status"),
    [
        ("ann", {"owner": "bob"}, 403),
        ("ann", {"conversation": "conv_b"}, 404),
        ("ann", {"conversation": "conv_none"}, 404),
        ("bob", {"conversation": "conv_a"}, 404),
        ("bob", {"owner": "ann", "subject": "s"}, 403),
        ("chat", {"conversation": "conv_a"}, 403),
        ("root", {}, 400),
        ("root", {"owner": "nobody"}, 404),
        ("root", {"owner": ""}, 400),
        ("root", {"patient": "x"}, 400),
    ],
)
def test_nobody_reaches_what_is_not_theirs(post, store, path, who, body, status):
    before = store.read(n_rows)
    response = post(who, path, **body)
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert store.read(n_rows) == before
    assert store.read(lambda db: audit.page(db, 0, 1)) == []


def test_a_subject_is_erased_for_its_owner_only(post, store, told, settings):
    response = post("ann", "/admin/erase", subject="s")
    assert response.status_code == 200
    receipt = response.json()
    assert receipt["is_gone"] is True
    assert receipt["what"] == {"subject": "s", "owner": "ann"}
    assert receipt["forgotten"] == ["prefix caches"]
    assert told[0].owner == "ann"
    assert str(settings.state_dir) not in response.text
    assert store.read(n_rows)["conversation"] == 1
    assert "transcript" not in store.read(n_rows)
    rows = store.read(lambda db: audit.page(db, 0, 10))
    assert {row.actor for row in rows} == {"key_ann"}
    kept = audit_anchor.read(settings.effective_audit_anchor)
    assert kept.seq == rows[-1].seq


def test_an_owners_receipt_says_nothing_of_others_and_of_backups(post, store):
    """Whoever stores a guess and erases it must not read whether somebody else has the same text."""
    guesses = ("bob spoke about somebody else", "nobody has ever written of this at all")
    for n, text in enumerate(guesses):
        store.write(lambda db, n=n, t=text: conversation(db, f"g{n}", text=t)).result()
    store.backups.take()
    told = [post("ann", "/admin/erase", conversation=f"conv_g{n}").json() for n in range(2)]
    of_itself = {"what", "began_ms", "done_ms", "digest", "audit_seq", "audit_mac"}
    shown = [{k: v for k, v in one.items() if k not in of_itself} for one in told]
    counts = [one["proof"].pop("n_probes") for one in shown]
    assert min(counts) > 0 and shown[0] == shown[1]
    assert set(shown[0]["proof"].values()) == {None}
    assert shown[0]["backups_holding"] is None and shown[0]["is_gone"] is True
    store.write(lambda db: conversation(db, "g", text=guesses[0])).result()
    full = post("root", "/admin/erase", conversation="conv_g").json()
    assert full["proof"]["shared"] and full["backups_holding"], "an administrator is told"


async def test_an_owner_waits_for_one_erasure_at_a_time(settings, store):
    hub, may_end = ErasureHub(), asyncio.Event()

    async def forget(gone):
        await may_end.wait()

    hub.register("slow", "something", forget)
    lifecycle = DataLifecycle(store, settings, hub=hub)
    ann = ErasureRequest(Selector(owner="ann"), "key_ann")
    first = asyncio.create_task(lifecycle.erase(ann))
    await asyncio.sleep(0)
    with pytest.raises(ErasureRunning) as refused:
        await lifecycle.erase(ann)
    status, headers, _ = errors.encoded(refused.value)
    assert status == 409 and dict(headers)[b"retry-after"] == b"5"
    other = asyncio.create_task(lifecycle.erase(ErasureRequest(Selector(owner="bob"), "key_bob")))
    may_end.set()
    assert (await first).is_gone and (await other).is_gone
    with pytest.raises(NotFound):
        await lifecycle.erase(ann)  # which may be asked again


def test_backups_are_dropped_by_an_admin_only(post, store):
    store.backups.take()
    assert post("ann", "/admin/erase", drop_backups=True).status_code == 403
    receipt = post("root", "/admin/erase", owner="ann", drop_backups=True).json()
    assert len(receipt["backups_removed"]) == 1
    assert receipt["backups_holding"] == []


def test_legal_hold_is_a_conflict(post, store):
    store.write(lambda db: db.execute("update conversation set is_held = 1").rowcount).result()
    response = post("ann", "/admin/erase")
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "legal_hold"
    assert post("ann", "/admin/erase", except_held=True).json()["erased"]["transcript"] == 1


def test_the_audit_is_read_page_by_page(post, store):
    for _ in range(5):
        post("ann", "/admin/export")
    seen, after = [], 0
    while after is not None:
        page = post.get("root", f"/admin/audit?after={after}&limit=2").json()
        seen += page["data"]
        after = page["next_after"]
    assert [row["seq"] for row in seen] == [1, 2, 3, 4, 5]
    assert {row["action"] for row in seen} == {"data.export"}
    head = audit_anchor.parse(page["head"])
    key = audit.key_of(store.secret)
    assert store.read(lambda db: audit.verify(db, key, [head])).is_sound
    assert post.get("root", "/admin/audit?limit=0").status_code == 400


def test_a_daemon_that_stores_nothing_says_so(settings):
    with TestClient(serving(DataLifecycle(None, settings))) as client:
        response = client.post("/admin/erase", json={}, headers={"x-who": "ann"})
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "store_off"


def test_every_route_is_described(settings):
    paths = serving(DataLifecycle(None, settings)).openapi_schema.to_schema()["paths"]
    assert set(paths) == {"/admin/audit", "/admin/export", "/admin/erase"}
    body = paths["/admin/erase"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"owner", "subject", "conversation", "except_held"}


async def test_sweeps_run_by_themselves_and_end_with_the_daemon(settings, store, caplog):
    store.write(lambda db: request(db, "old", at=1)).result()
    lifecycle = DataLifecycle(store, settings, first_sweep_s=0.0)
    with caplog.at_level("INFO"):
        lifecycle.start()
        await asyncio.to_thread(wait_for, lambda: settings.effective_audit_anchor.exists())
        await lifecycle.close()
        await lifecycle.close()
    assert "audit_head seq=" in caplog.text


def test_a_key_for_data_has_one_erasure_at_a_time(settings):
    """Each takes the whole store: who owns a part of it must not keep it busy."""
    with TestClient(serving(DataLifecycle(None, settings))) as client:

        def erase(who: str) -> int:
            return client.post("/admin/erase", json={}, headers={"x-who": who}).status_code

        with LIMITER.admit(CALLERS["ann"]).alone("erasure"):
            assert erase("ann") == 429
            assert erase("bob") == 409, "another key's is its own"
        assert erase("ann") == 409
