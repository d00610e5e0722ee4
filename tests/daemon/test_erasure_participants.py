"""Each place that holds content is filled with a canary, and looked at after everything that deletes.

The daemon of these tests runs in this process, so that what it holds can be looked at.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagent.daemon.app import Daemon
from edgeagent.device.configuration import configure
from edgeagent.errors import Erased
from edgeagent.routing.decision import Decision
from edgeagent.serving.audio_job import JobOptions
from edgeagent.serving.audio_jobs import AudioJobs, JobSpec
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.options import SpeechOptions
from edgeagent.store import erasure, row_deletion
from edgeagent.store.clock import BUILD_MS
from edgeagent.store.database_pages import decrypted
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.key_record import KeySpec
from edgeagent.store.ownership import Selector
from tests.conftest import TALES_CHAT, approve_dropped

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning",
)

CANARY = "qzcanary the patient in bed seven has a rare disease of the inner ear and sings at night "
LONG = CANARY * 2
ASK = {"model": TALES_CHAT, "temperature": 0}


@dataclass
class House:
    """A daemon, its two callers, and what the first one has put into it."""

    daemon: Daemon
    client: httpx.AsyncClient
    secrets: dict[str, str]
    response: str = ""
    conversation: str = ""
    exports: list[AsyncIterator[bytes]] = field(default_factory=list)
    sessions: list[Any] = field(default_factory=list)

    async def call(self, method: str, path: str, body: Any = None, who: str = "ann") -> Any:
        headers = {"authorization": f"Bearer {self.secrets[who]}"}
        return await self.client.request(method, path, json=body, headers=headers)

    async def made(self, path: str, body: Any, who: str = "ann") -> dict[str, Any]:
        answer = await self.call("POST", path, body, who)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def n_cached(self, who: str = "ann") -> int:
        """How much of a prompt that was sent before is still in the worker."""
        body = ASK | {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1}
        usage = (await self.made("/v1/chat/completions", body, who))["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])


@asynccontextmanager
async def living(models: Path, state: Path, **flags: Any) -> AsyncIterator[House]:
    flags = {"n_ctx": 8192, "n_seq": 4, "n_threads": 1, "measure_when_idle": False} | flags
    flags |= {"prefix_min_tokens": 16, "request_flush_s": 3600, "host": "127.0.0.1", "port": 8484}
    approve_dropped(models, state)
    daemon = Daemon(configure(flags={"state_dir": state, "models_dir": models} | flags))
    secrets = {}
    for name, scopes in (("ann", {"chat", "data"}), ("bob", {"chat", "data"}), ("root", {"admin"})):
        made = daemon.keyring.create(KeySpec(name=name, scopes=scopes, owner=name), "test")
        secrets[name] = made.result(60).secret
    await daemon._start()
    transport = httpx.ASGITransport(app=daemon.app)
    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484", timeout=60)
    try:
        async with client:
            yield House(daemon, client, secrets)
    finally:
        await daemon.close()


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        await asyncio.sleep(0.02)


# ---- one filler, and one look, for each place


async def fill_answers(house: House) -> None:
    """An answer in the background, in a conversation, and what was thought of it."""
    house.conversation = (await house.made("/v1/conversations", {}))["id"]
    body = ASK | {
        "input": LONG, "instructions": CANARY, "background": True, "max_output_tokens": 4,
        "conversation": house.conversation,
    }  # fmt: skip
    house.response = (await house.made("/v1/responses", body))["id"]
    run = house.daemon.background.find("ann", house.response)
    assert run is not None
    await until(lambda: run.has_ended)
    rated = {"target_id": house.response, "rating": -1, "comment": CANARY}
    await house.made("/v1/feedback", rated)


async def has_answers(house: House) -> bool:
    shown = await house.call("GET", f"/v1/responses/{house.response}")
    told = await house.call("GET", f"/v1/responses/{house.response}?stream=true")
    assert shown.status_code in (200, 404)
    return "qzcanary" in shown.text + told.text


async def fill_recordings(house: House) -> None:
    """A job that waits for the rest of its recording."""
    jobs = AudioJobs(
        house.daemon.archive, house.daemon.audio_job_runner, house.daemon.settings.speech.jobs
    )
    spec = JobSpec(model="w", n_bytes=1000, options=JobOptions(speech=SpeechOptions()))
    made = await jobs.create(RequestOrigin("/v1/audio/jobs", "req_1", "ann", "key_1"), spec)
    await jobs.append("ann", made["id"], 0, CANARY.encode())


async def has_recordings(house: House) -> bool:
    assert house.daemon.database is not None
    return any(house.daemon.database.files.recordings.iterdir())


async def fill_sessions(house: House) -> None:
    origin = RequestOrigin("/v1/realtime", "req_1", "ann", "local")
    opened = house.daemon.live_transcriptions.open(origin, Decision("w", "named"), LiveOptions())
    house.sessions.append((opened, await opened.__aenter__()))


async def has_sessions(house: House) -> bool:
    """Whether the session goes on; one that was ended raises why."""
    opened, session = house.sessions.pop()
    try:
        async with asyncio.timeout(0.05):
            await session.take()
    except TimeoutError:
        return True
    except Erased:
        return False
    finally:
        await opened.__aexit__(None, None, None)
    return True


async def fill_exports(house: House) -> None:
    pieces = await house.daemon.lifecycle.export(Selector(owner="ann"), "test")
    await anext(pieces)
    house.exports.append(pieces)


async def has_exports(house: House) -> bool:
    rest = b""
    try:
        async for piece in house.exports.pop():
            rest += piece
    except Erased:
        pass
    return b"qzcanary" in rest


async def fill_requests(house: House) -> None:
    await house.n_cached()
    await house.n_cached("bob")


async def has_requests(house: House) -> bool:
    log = house.daemon._requests
    assert log is not None
    return any(row.owner == "ann" for row in log._rows)


async def fill_cells(house: House) -> None:
    await house.n_cached()
    assert await house.n_cached() > 30


async def has_cells(house: House) -> bool:
    return await house.n_cached() > 0


def kept_files(house: House) -> list[Path]:
    assert house.daemon.database is not None
    return list(house.daemon.database.files.prefixes.iterdir())


async def fill_files(house: House) -> None:
    await until(lambda: kept_files(house))  # the answer in the background is long enough


async def has_files(house: House) -> bool:
    await until(lambda: is_tidy(house))
    return bool(kept_files(house))


def is_tidy(house: House) -> bool:
    """Whether no state is being written, and no files without rows are being deleted."""
    store = house.daemon.prefix_store
    is_written = store._worker is None or store._worker.done()
    return is_written and not any("to_thread" in repr(task) for task in store._tasks)


def history(house: House) -> Path:
    return house.daemon.settings.state_dir / "chat_history"


async def fill_history(house: House) -> None:
    history(house).write_text(CANARY)


async def has_history(house: House) -> bool:
    return history(house).exists()


async def fill_batches(house: House) -> None:
    """A batch that takes longer than the test."""
    body = ASK | {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 900}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    text = json.dumps(line | {"body": body | {"ignore_eos": True}})
    headers = {"authorization": f"Bearer {house.secrets['ann']}"}
    sent = await house.client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", text)}, headers=headers
    )
    assert sent.status_code == 200, sent.text
    batch = {"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions"}
    await house.made("/v1/batches", batch)
    assert house.daemon.batch_runner._tasks


async def has_batches(house: House) -> bool:
    files = await house.call("GET", "/v1/files")
    return bool(house.daemon.batch_runner._tasks or files.json()["data"])


async def fill_documents(house: House) -> None:
    """A document that is being parsed."""
    headers = {"authorization": f"Bearer {house.secrets['ann']}"}
    sent = await house.client.post(
        "/v1/files", data={"purpose": "assistants"}, headers=headers,
        files={"file": ("a.txt", "The ferry leaves at nine. " * 200)},
    )  # fmt: skip
    assert sent.status_code == 200, sent.text
    await house.made("/v1/vector_stores", {"name": "a", "file_ids": [sent.json()["id"]]})
    await until(lambda: house.daemon.knowledge.indexer._turn is not None)


async def has_documents(house: House) -> bool:
    files = await house.call("GET", "/v1/files?purpose=assistants")
    return bool(house.daemon.knowledge.indexer._turn or files.json()["data"])


async def fill_remembered(house: House) -> None:
    headers = {"authorization": f"Bearer {house.secrets['ann']}", "idempotency-key": "k"}
    body = ASK | {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1}
    first = await house.client.post("/v1/chat/completions", json=body, headers=headers)
    again = await house.client.post("/v1/chat/completions", json=body, headers=headers)
    assert again.json() == first.json() and "idempotent-replayed" in again.headers


async def has_remembered(house: House) -> bool:
    return len(house.daemon.remembered) > 0


Step = Callable[[House], Awaitable[Any]]
PLACES: dict[str, tuple[Step, Step]] = {
    "background answers": (fill_answers, has_answers),
    "recordings": (fill_recordings, has_recordings),
    "kept prefixes": (fill_files, has_files),
    "terminal history": (fill_history, has_history),
    "live sessions": (fill_sessions, has_sessions),
    "exports": (fill_exports, has_exports),
    "remembered answers": (fill_remembered, has_remembered),
    "documents": (fill_documents, has_documents),
    "batches": (fill_batches, has_batches),
    # Looks that ask a model come last, and the requests that they make are looked for before.
    "request log": (fill_requests, has_requests),
    "cached prefixes": (fill_cells, has_cells),
}


async def erase_owner(house: House) -> None:
    receipt = await house.made("/admin/erase", {"owner": "ann"})
    assert receipt["is_gone"] and set(receipt["forgotten"]) == set(PLACES)


async def erase_elsewhere(house: House) -> None:
    """As the command line does it."""
    database = house.daemon.database
    assert database is not None
    request = ErasureRequest(Selector(owner="ann"), "cli:test")
    places = ErasureScope(house.daemon.settings.state_dir)
    await asyncio.to_thread(erasure.erase, database, b"k" * 32, request, places)
    database.files.erased.touch()
    await until(lambda: not house.daemon.background.ids("ann"))
    await until(lambda: not history(house).exists())


async def delete_response(house: House) -> None:
    assert (await house.call("DELETE", f"/v1/responses/{house.response}")).status_code == 200


async def delete_conversation(house: House) -> None:
    path = f"/v1/conversations/{house.conversation}"
    assert (await house.call("DELETE", path)).status_code == 200


async def expire(house: House) -> None:
    """Retention, over rows that are old: the rows of the last seconds are dated back."""
    daemon = house.daemon
    assert daemon.database is not None

    def age(db: Any) -> None:
        for table in ("item", "response"):
            db.execute(f"update {table} set created_ms = ?", (BUILD_MS - 400 * 86_400_000,))

    await daemon.database.write_async(age)
    told, forget = asyncio.Event(), daemon.hub.forget

    async def forget_and_tell(gone: DeletedContent) -> list[str]:
        done = await forget(gone)
        told.set()
        return done

    daemon.hub.forget = forget_and_tell
    daemon.lifecycle._first_sweep_s = 0.0
    daemon.lifecycle.start()
    async with asyncio.timeout(60):
        await told.wait()
    assert not daemon.background.ids("ann")


STORED = {"background answers", "kept prefixes", "cached prefixes"}
WAYS: dict[str, tuple[Step, set[str]]] = {
    "erase": (erase_owner, set(PLACES)),
    # Nobody knows whose live session would have to end, and it stores nothing.
    "elsewhere": (erase_elsewhere, set(PLACES) - {"request log", "live sessions"}),
    "response": (delete_response, STORED | {"exports", "remembered answers"}),
    "conversation": (delete_conversation, STORED | {"exports", "remembered answers"}),
    "expiry": (expire, STORED),
}


async def test_every_registered_place_has_a_filler_and_a_look(tmp_path: Path):
    daemon = Daemon(configure(flags={"state_dir": tmp_path / "s", "models_dir": tmp_path}))
    names = {place.name for place in daemon.hub.places}
    await daemon.close()
    assert names == set(PLACES)


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_canary_is_nowhere_after(way: str, tales_dir: Path, tmp_path: Path):
    act, places = WAYS[way]
    async with living(tales_dir, tmp_path / "state") as house:
        for fill, _ in PLACES.values():
            await fill(house)
        assert await has_answers(house) and await has_files(house)
        await act(house)
        found = {name for name in PLACES if name in places and await PLACES[name][1](house)}
        assert found == set()
        # The other's cells stay where the daemon knows whose they were.
        if way in ("response", "conversation", "expiry"):
            assert await house.n_cached("bob") > 0
        await nothing_on_disk(house)


async def nothing_on_disk(house: House) -> None:
    """Neither pages of the database nor another file of the state directory has it, once cleaned up."""
    database = house.daemon.database
    assert database is not None and database.secret is not None
    await asyncio.to_thread(row_deletion.clean, database)
    exported = await house.call("POST", "/admin/export", {})
    assert "qzcanary" not in exported.text
    for path in house.daemon.settings.state_dir.rglob("*"):
        is_page = path.name.startswith("edgeagent.db") and not path.name.endswith("-shm")
        if is_page and path.stat().st_size:
            pages = b"".join(decrypted(path, database.secret.raw))
            assert b"qzcanary" not in pages and b"rare disease" not in pages, path
        elif path.is_file() and path.name not in ("chat_history",):
            assert b"qzcanary" not in path.read_bytes(), path


# ---- what is under way when it is erased


@pytest.mark.parametrize(
    ("is_anything_stored", "path", "body"),
    [
        (
            True,
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": LONG}], "store": True},
        ),
        (False, "/v1/responses", {"input": LONG}),
    ],
)
async def test_an_answer_in_flight_is_not_stored_after_its_owner_was_erased(
    is_anything_stored: bool, path: str, body: dict[str, Any], tales_dir: Path, tmp_path: Path
):
    async with living(tales_dir, tmp_path / "state") as house:
        if is_anything_stored:
            await house.n_cached()
            await house.made("/v1/conversations", {})
        name = "max_tokens" if "messages" in body else "max_output_tokens"
        # What is erased goes on to its end; the time of a token grows with those before it.
        body = ASK | body | {name: 400, "ignore_eos": True}
        flying = asyncio.create_task(house.call("POST", path, body))
        other = asyncio.create_task(house.call("POST", path, body, "bob"))
        await until(lambda: house.daemon.pool.is_busy)
        erased = await house.call("POST", "/admin/erase", {})
        assert erased.status_code == (200 if is_anything_stored else 404), erased.text
        answer = await flying
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "erased")
        assert (await other).status_code == 200, "another owner's is stored"
        exported = await house.call("POST", "/admin/export", {})
        assert "qzcanary" not in exported.text
        assert await house.n_cached() == 0, "what it computed is not cached"


async def test_a_background_answer_in_flight_ends_with_its_conversation(
    tales_dir: Path, tmp_path: Path
):
    async with living(tales_dir, tmp_path / "state") as house:
        house.conversation = (await house.made("/v1/conversations", {}))["id"]
        body = ASK | {
            "input": LONG, "background": True, "max_output_tokens": 3000, "ignore_eos": True,
            "conversation": house.conversation,
        }  # fmt: skip
        house.response = (await house.made("/v1/responses", body))["id"]
        run = house.daemon.background.live("ann", house.response)
        assert run is not None
        await until(lambda: len(run._events) > 4)
        await delete_conversation(house)
        assert run.has_ended and not await has_answers(house)
        (error,), _ = await run.take(0)
        assert json.loads(error.data)["code"] == "erased"


def test_what_is_gone_meets_what_may_hold_it():
    ann = DeletedContent.erased(Selector(owner="ann", subject="s"))
    assert ann.meets(Selector(owner="ann")) and ann.meets(Selector(subject="s"))
    assert not ann.meets(Selector(owner="bob")) and not ann.meets(Selector(subject="t"))
    assert DeletedContent("elsewhere").meets(Selector(conversation="c"))
