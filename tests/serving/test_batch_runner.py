"""How batches are done: over a real store, with calls that a test decides."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.errors import StorageFull
from edgeagent.serving import batch_lines
from edgeagent.serving.batch_runner import MAX_DEATHS, BatchRunner, CallAnswer
from edgeagent.serving.batches import Batches
from edgeagent.serving.content_archive import Archive
from edgeagent.settings.batch import BatchSettings
from edgeagent.store import batches
from edgeagent.store.batches import BatchBounds, NewBatch, NewFile
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.ownership import Selector
from edgeagent.store.sql import now_ms
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import LOCAL, Caller

ENDPOINT = "/v1/completions"
BOUNDS = BatchBounds(n_files=10, n_bytes=1 << 20, n_open=2)
BATCH = "batch_1"
M = 1 << 20


def line(custom_id: str) -> str:
    body = {"prompt": f"Tale {custom_id}"}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body})


class House:
    """A store with one batch, and the runner that does it."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(
            folder, Secret(os.urandom(32), "the test"), StoreOptions(reserve_bytes=0)
        )
        self.bodies: list[bytes] = []

    def add(self, *lines: str) -> None:
        file = NewFile(id="file-1", owner="ann", name="a.jsonl", lines=list(lines))
        batch = NewBatch(
            id=BATCH, owner="ann", key_id="key_1", endpoint=ENDPOINT, window="24h",
            input_file_id="file-1", output_file_id="file-o", error_file_id="file-e",
            metadata={}, expires_ms=now_ms() + 3_600_000,
        )  # fmt: skip

        def add(db: Any) -> None:
            batches.add_file(db, file, BOUNDS, now_ms=now_ms())
            batches.add(db, batch, BOUNDS, now_ms=now_ms())

        self.database.write(add).result()

    def do(
        self, answer: Callable[[bytes], CallAnswer], n_parallel: int = 2, max_owner_bytes: int = M
    ) -> dict[str, Any]:
        """The batch at its end, each of its requests answered by `answer`."""

        async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
            self.bodies.append(body)
            return answer(body)

        async def all_of_it() -> None:
            runner = BatchRunner(self.database, call, lambda _: LOCAL, n_parallel, max_owner_bytes)
            await runner.start()
            await asyncio.wait_for(asyncio.gather(*runner._tasks.values()), 60)
            await runner.close()

        asyncio.run(all_of_it())
        found = self.database.read(lambda db: batches.get(db, BATCH))
        assert found is not None
        return found

    def rows(self, file_id: str) -> dict[str, Any]:
        found = self.database.read(lambda db: batches.lines(db, file_id))
        return {row["custom_id"]: row for row in (json.loads(one.text) for one in found)}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.database.close()


def fine(body: bytes) -> CallAnswer:
    return CallAnswer(200, "req_1", b'{"n": %d}' % len(body))


def test_a_request_that_fails_by_our_error_is_an_error_line(house: House):
    def answer(body: bytes) -> CallAnswer:
        if b"Tale bad" in body:
            raise RuntimeError("a defect")
        return fine(body)

    house.add(line("good"), line("bad"), line("fine"))
    row = house.do(answer)
    assert (row["status"], row["n_completed"], row["n_failed"]) == ("completed", 2, 1)
    assert house.rows("file-e")["bad"]["error"]["code"] == "internal_error"
    assert set(house.rows("file-o")) == {"good", "fine"}


def died(body: bytes) -> CallAnswer:
    return CallAnswer(503, "req_1", b'{"error": {}}', 0.0, "engine_died")


def test_a_request_that_ends_its_worker_again_and_again_is_an_error(house: House):
    house.add(line("good"), line("bad"), line("fine"))
    row = house.do(lambda body: died(body) if b"Tale bad" in body else fine(body))
    assert (row["status"], row["n_completed"], row["n_failed"]) == ("completed", 2, 1)
    assert sum(b"Tale bad" in body for body in house.bodies) == MAX_DEATHS
    assert house.rows("file-e")["bad"]["response"]["status_code"] == 503


def test_requests_that_were_there_when_a_worker_died_are_not_blamed(house: House):
    """A bad request ends the worker for all that run beside it."""
    house.add(*[line(name) for name in ("bad", "a", "b", "c")])
    running: set[bytes] = set()

    async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
        running.add(body)
        for _ in range(20):  # until the others are there
            await asyncio.sleep(0)
        has_died = any(b"Tale bad" in one for one in running)
        await asyncio.sleep(0)
        running.discard(body)
        return died(body) if has_died else fine(body)

    async def all_of_it() -> None:
        runner = BatchRunner(house.database, call, lambda _: LOCAL, 4, M)
        await runner.start()
        await asyncio.wait_for(asyncio.gather(*runner._tasks.values()), 60)

    asyncio.run(all_of_it())
    assert set(house.rows("file-e")) == {"bad"} and set(house.rows("file-o")) == {"a", "b", "c"}


def test_answers_beyond_the_bytes_of_the_owner_are_errors(house: House):
    lines = [line(f"{i}") for i in range(4)]
    house.add(*lines)
    most = sum(len(one) + 1 for one in lines) + 5000
    row = house.do(lambda _: CallAnswer(200, "req_1", b'"%s"' % (b"x" * 2000)), 1, most)
    assert (row["status"], row["n_completed"], row["n_failed"]) == ("completed", 2, 2)
    for one in house.rows("file-e").values():
        assert one["error"]["code"] == "storage_full"
    assert house.database.read(lambda db: batches.n_bytes_of(db, "ann")) < most


def test_lines_that_are_erased_while_they_are_done_are_given_up(house: House):
    """Also those that have been read, and wait for their turn."""
    lines = [json.loads(line(name)) for name in ("about", "also about", "other")]
    for one in lines[:2]:
        one["body"]["metadata"] = {"subject": "mr-17"}
    house.add(*[json.dumps(one) for one in lines])
    begun = asyncio.Event()

    async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
        house.bodies.append(body)
        begun.set()
        if b"mr-17" in body:
            await asyncio.Event().wait()
        return fine(body)

    async def all_of_it() -> None:
        runner = BatchRunner(house.database, call, lambda _: LOCAL, 1, M)
        await runner.start()
        await begun.wait()
        where, values = Selector(subject="mr-17").where("batch_line"), {"subject": "mr-17"}
        sql = f"delete from batch_line where {where}"
        await house.database.write_async(lambda db: db.execute(sql, values).rowcount)
        await runner.forget(begins_again=True)
        await asyncio.gather(*runner._tasks.values())
        await runner.close()

    asyncio.run(asyncio.wait_for(all_of_it(), 60))
    assert [b"mr-17" in body for body in house.bodies] == [True, False]
    assert set(house.rows("file-o")) == {"other"} and not house.rows("file-e")


def test_a_batch_that_is_stopped_twice_ends_once_and_leaves_no_task(house: House):
    house.add(line("a"))

    async def twice() -> None:
        begun = asyncio.Event()

        async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        runner = BatchRunner(house.database, call, lambda _: LOCAL, 2, M)
        await runner.start()
        await begun.wait()
        await house.database.write_async(
            lambda db: batches.cancel(db, "ann", BATCH, now_ms=now_ms())
        )
        (first,) = runner._tasks.values()
        runner.stop(BATCH)
        runner.stop(BATCH)
        assert list(runner._tasks.values()) == [first], "which ends before the next one begins"
        await asyncio.wait([first])
        await asyncio.sleep(0)
        (second,) = runner._tasks.values()
        await second
        await asyncio.sleep(0)
        assert not runner._tasks
        await runner.close()

    asyncio.run(asyncio.wait_for(twice(), 60))
    row = house.database.read(lambda db: batches.get(db, BATCH))
    assert row is not None and row["status"] == "cancelled"


def test_a_batch_that_our_error_stops_has_failed(house: House, monkeypatch: pytest.MonkeyPatch):
    def broken(text: str) -> Any:
        raise RecursionError("a defect")

    house.add(line("a"), line("b"))
    monkeypatch.setattr(batch_lines, "parsed", broken)
    row = house.do(fine)
    assert row["status"] == "failed" and row["failed_ms"] is not None
    assert json.loads(row["errors"])["data"][0]["code"] == "internal_error"
    assert row["output_bytes"] is None, "the files of the answers stayed empty"


async def test_a_batch_that_cannot_be_noted_is_done_all_the_same(house: House):
    house.add(line("a"))
    woken: list[str] = []

    async def note(caller: Caller, action: str, batch_id: str) -> None:
        raise StorageFull("The disk is full.")

    made = Batches(
        Archive(house.database, is_searchable=False), BatchSettings(), wake=woken.append, stop=woken.append,
        note=note,
    )  # fmt: skip
    caller = msgspec.structs.replace(LOCAL, owner="ann")
    with pytest.raises(StorageFull):
        await made.create(caller, "file-1", ENDPOINT, "24h", {})
    unfinished = house.database.read(batches.unfinished)
    assert len(woken) == 1 and {BATCH, *woken} == set(unfinished)
