"""DELETE and ages over HTTP, with an older copy of the database put back between two starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from edgeagent.settings import resolve
from edgeagent.store import responses, retention
from edgeagent.store.clock import DeviceClock
from edgeagent.store.database import Database, open_store
from edgeagent.store.responses import StoredResponse
from edgeagent.store.sql import now_ms
from tests.conftest import serving

SETTINGS = {"preload": False, "retention_content_days": 30, "retention_responses_days": 30}
WORDS = [{"role": "user", "content": "The canary sings."}] * 2


def put(db: object, name: str, days: float = 0) -> None:
    responses.put(
        db,  # type: ignore[arg-type]
        StoredResponse(
            id=name, owner="local", model="m", status="completed", subject=None,
            body={"id": name, "object": "response", "metadata": {}}, items=[],
        ),
        now_ms=now_ms() - int(days * 86_400_000), is_searchable=False,
    )  # fmt: skip


def store_of(state: Path) -> Database:
    return open_store(resolve(flags={"state_dir": state}).settings)


def test_an_older_copy_shows_neither_what_was_deleted_nor_what_is_over_its_age(tmp_path: Path):
    state, models = tmp_path / "state", tmp_path / "models"
    models.mkdir()
    with store_of(state) as store:
        clock = DeviceClock()
        retention.Sweeper(store, b"k" * 32, {}, clock).sweep()  # knows this clock from now on
        for name, days in (
            ("resp_gone", 0),
            ("chatcmpl-gone", 0),
            ("resp_old", 40),
            ("resp_new", 20),
        ):
            store.write(lambda db, name=name, days=days: put(db, name, days)).result()
        # As a copy from long ago is: when it was made, nothing in it was old.
        store.write(
            lambda db: db.execute("update checkpoint set body = '1' where name = 'swept'")
        ).result()
    with serving(models, state, **SETTINGS) as daemon, httpx.Client(base_url=daemon.url) as http:
        whole = http.post("/v1/conversations", json={"items": WORDS}).json()["id"]
        part = http.post("/v1/conversations", json={"items": WORDS}).json()["id"]
        item = http.get(f"/v1/conversations/{part}/items").json()["data"][0]["id"]
        paths = [
            "/v1/responses/resp_gone", "/v1/chat/completions/chatcmpl-gone",
            f"/v1/conversations/{whole}", f"/v1/conversations/{part}/items/{item}",
        ]  # fmt: skip
        older = tmp_path / "older.db"
        with store_of(state) as store:
            shutil.copy(store.backups.take().path, older)
        for path in paths:
            assert http.get(path).status_code == 200, path
            assert http.delete(path).status_code == 200, path
        assert http.delete(paths[0]).status_code == 404
    with store_of(state) as store:
        database = store.files.database
    shutil.copy(older, database)
    with store_of(state) as store:
        store.write(lambda db: put(db, "resp_late", 40)).result()
        store.write(
            lambda db: db.execute("update checkpoint set body = '1' where name = 'swept'")
        ).result()
    with serving(models, state, **SETTINGS) as daemon, httpx.Client(base_url=daemon.url) as http:
        for path in (*paths, "/v1/responses/resp_old", "/v1/responses/resp_late"):
            assert http.get(path).status_code == 404, path
        assert http.get("/v1/responses/resp_new").status_code == 200
        assert len(http.get(f"/v1/conversations/{part}/items").json()["data"]) == 1
