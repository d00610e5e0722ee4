"""How batches are done: over a real store, with calls that a test decides."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.serving import batch_lines
from edgeagent.serving.batch_runner import BatchRunner, CallAnswer
from edgeagent.store import batches
from edgeagent.store.batches import BatchBounds, NewBatch, NewFile
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.sql import now_ms
from edgeagent.store.store_key import Secret
from edgeagent.types.caller import LOCAL, Caller

ENDPOINT = "/v1/completions"
BOUNDS = BatchBounds(n_files=10, n_bytes=1 << 20, n_open=2)
BATCH = "batch_1"


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

    def do(self, answer: Callable[[bytes], CallAnswer], n_parallel: int = 2) -> dict[str, Any]:
        """The batch at its end, each of its requests answered by `answer`."""

        async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
            self.bodies.append(body)
            return answer(body)

        async def all_of_it() -> None:
            runner = BatchRunner(self.database, call, lambda _: LOCAL, n_parallel)
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
    return CallAnswer(200, "req_1", {"n": len(body)})


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


def test_a_batch_that_is_stopped_twice_ends_once_and_leaves_no_task(house: House):
    house.add(line("a"))

    async def twice() -> None:
        begun = asyncio.Event()

        async def call(caller: Caller, path: str, body: bytes) -> CallAnswer:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        runner = BatchRunner(house.database, call, lambda _: LOCAL, 2)
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
