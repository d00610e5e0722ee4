"""Does the requests of batches, a few at a time, behind everything that somebody waits for.

    validating    look through the input; a file that is not sound fails the batch
    in_progress   each line: do its request as if it came by HTTP, store the answer with the count
    end           completed; cancelled when its owner said so; expired at the end of its window

Which lines are done is in the database only, so that a daemon that was killed goes on where it was: a line
may be computed twice, and is answered once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import msgspec

from edgeagent.errors import EdgeAgentError, EngineDied
from edgeagent.serving import batch_lines
from edgeagent.serving.batch_lines import LineError, LineRequest
from edgeagent.store import batches, erasure_epochs
from edgeagent.store.batches import BatchLine
from edgeagent.store.database import Database
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import Caller
from edgeagent.types.priority import BATCH

logger = logging.getLogger(__name__)

FETCH = 32  # lines that are read at once
LONGEST_WAIT_S = 60.0  # before a request is tried again
MAX_DEATHS = 3  # of workers, by one request
RETRY_S = 5.0  # after an error of the store

Ending = Literal["completed", "cancelled", "expired"]


class CallAnswer(NamedTuple):
    """The answer to one request: JSON, and the code of an error. `retry_after_s`: it was refused for now."""

    status: int
    request_id: str
    body: bytes
    retry_after_s: float | None = None
    error_code: str | None = None


# Does one request: caller, path, body.
Call = Callable[[Caller, str, bytes], Awaitable[CallAnswer]]


class KeyGone(Exception):
    """The key that a batch was made with is not valid any more."""


class BatchRunner:
    """The batches that have not ended, a task for each. Event loop's thread only; `close()` may be called
    twice. `caller_of` gives the caller of a key, None if it is not valid any more."""

    def __init__(
        self,
        database: Database | None,
        call: Call,
        caller_of: Callable[[str], Caller | None],
        n_parallel: int,
        max_owner_bytes: int,
    ) -> None:
        self._database = database
        self._call = call
        self._caller_of = caller_of
        self._turns = asyncio.Semaphore(n_parallel)
        self._n_parallel = n_parallel
        self.max_owner_bytes = max_owner_bytes
        self._suspects = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False

    async def start(self) -> None:
        """Go on with the batches that an earlier daemon has not ended."""
        if self._database is None:
            return
        try:
            found = await self._database.read_async(batches.unfinished)
        except EdgeAgentError as exc:
            logger.error("batches_not_resumed code=%s", exc.code)
            return
        for batch_id in found:
            self.wake(batch_id)

    def wake(self, batch_id: str) -> None:
        """Begin a batch."""
        if batch_id not in self._tasks and not self._is_closing:
            task = asyncio.create_task(self._run(batch_id), name=f"batch-{batch_id}")
            self._tasks[batch_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(batch_id))

    def stop(self, batch_id: str) -> None:
        """End a batch that was cancelled: what runs of it is given up."""
        task = self._tasks.get(batch_id)
        if task is None:
            self.wake(batch_id)
        elif not task.cancelling():
            task.add_done_callback(lambda _: self.wake(batch_id))  # which ends it in the database
            task.cancel()

    async def forget(self, *, begins_again: bool) -> None:
        """Give up batches whose rows are gone; all of them if lines may be gone, to begin with those that are
        left."""
        if self._database is None or not self._tasks:
            return
        left = set(await self._database.read_async(batches.unfinished))
        gone = {
            batch_id: task
            for batch_id, task in self._tasks.items()
            if begins_again or batch_id not in left
        }
        for task in gone.values():
            task.cancel()
        if gone:
            await asyncio.wait(gone.values())
        for batch_id in gone.keys() & left:
            self.wake(batch_id)

    async def close(self) -> None:
        self._is_closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- one batch

    async def _run(self, batch_id: str) -> None:
        has_failed = False
        while not self._is_closing:
            try:
                await (self._fail(batch_id) if has_failed else self._run_to_end(batch_id))
                return
            except EdgeAgentError as exc:  # of the store: a full disk, say
                logger.warning("batch_interrupted id=%s code=%s", batch_id, exc.code)
                await asyncio.sleep(RETRY_S)
            except Exception:
                logger.exception("batch_failed id=%s", batch_id)
                if has_failed:
                    return
                has_failed = True

    async def _run_to_end(self, batch_id: str) -> None:
        assert self._database is not None
        row = await self._database.read_async(lambda db: batches.get(db, batch_id))
        if row is None or row["status"] not in batches.OPEN:
            return
        if row["status"] == "cancelling":
            await self._end(batch_id, "cancelled")
            return
        if row["status"] == "validating" and not await self._is_sound(row):
            return
        left_s = (row["expires_ms"] - now_ms()) / 1e3
        try:
            async with asyncio.timeout(max(0.0, left_s)) as limit:
                await _Lines(self, self._database, row).do_all(self._n_parallel)
        except TimeoutError:
            if not limit.expired():
                raise
            await self._expire(row)
            return
        except KeyGone:
            await self._give_up(
                row, "key_invalid", "The API key of the batch is not valid any more."
            )
            return
        await self._end(batch_id, "completed")

    async def _is_sound(self, row: dict[str, Any]) -> bool:
        """Look through the input, and begin or refuse the batch."""
        assert self._database is not None
        database, batch_id = self._database, row["id"]
        lines = await database.read_async(lambda db: batches.lines(db, row["input_file_id"]))
        texts = [line.text for line in lines]
        errors = await asyncio.to_thread(batch_lines.check, texts, row["endpoint"])
        if errors or not texts:
            await self._refuse(batch_id, errors)
            logger.info("batch_refused id=%s n_errors=%d", batch_id, len(errors))
            return False
        return await database.write_async(
            lambda db: batches.begin(db, batch_id, len(texts), now_ms=now_ms())
        )

    async def _fail(self, batch_id: str) -> None:
        """End a batch that our own error stopped."""
        message = "The batch ended by an error of the server: send its open requests again."
        await self._refuse(batch_id, [LineError("internal_error", message)])

    async def _refuse(self, batch_id: str, errors: list[LineError]) -> None:
        assert self._database is not None
        shown = msgspec.json.encode({"object": "list", "data": errors}).decode()

        def refuse(db: Any) -> None:
            batches.refuse(db, batch_id, shown, now_ms=now_ms())
            batches.forget_files(db, batch_id)

        await self._database.write_async(refuse)

    async def _expire(self, row: dict[str, Any]) -> None:
        message = "The batch was not done within its window."
        await self._give_up(row, "batch_expired", message)

    async def _give_up(self, row: dict[str, Any], code: str, message: str) -> None:
        """Answer the open lines of a batch with an error, and end it as expired."""
        assert self._database is not None

        def answer_some(db: Any) -> int:
            found = batches.open_lines(db, row["id"], FETCH)
            for line in found:
                request = batch_lines.parsed(line.text)
                text = batch_lines.unanswered(request.custom_id, code, message)
                batches.record(db, row["id"], BatchLine(line.position, text), is_error=True)
            return len(found)

        while await self._database.write_async(answer_some):
            pass
        await self._end(row["id"], "expired")

    async def _end(self, batch_id: str, status: Ending) -> None:
        assert self._database is not None

        def end(db: Any) -> bool:
            has_ended = batches.end(db, batch_id, status, now_ms=now_ms())
            if has_ended:
                batches.forget_files(db, batch_id)
            return has_ended

        if await self._database.write_async(end):
            logger.info("batch_ended id=%s status=%s", batch_id, status)

    async def answer(self, row: dict[str, Any], body: bytes) -> CallAnswer:
        """Do one request, and again for as long as it is refused for now, but MAX_DEATHS times where it ends
        its worker. Raises: KeyGone.

        Requests that were there when a worker died are done again one after another, so that each counts its
        own deaths only.
        """
        assert self._database is not None
        n_deaths = 0
        while True:
            caller = await asyncio.to_thread(self._caller_of, row["key_id"])
            if caller is None:
                raise KeyGone
            caller = msgspec.structs.replace(caller, max_priority=BATCH)
            # What it stores is refused where its owner is erased meanwhile.
            erasure_epochs.SEEN.set(await self._database.read_async(erasure_epochs.newest))
            async with self._suspects if n_deaths else nullcontext(), self._turns:
                answer = await self._call(caller, row["endpoint"], body)
            n_deaths += answer.error_code == EngineDied.code
            if answer.retry_after_s is None or n_deaths == MAX_DEATHS:
                return answer
            await asyncio.sleep(min(LONGEST_WAIT_S, answer.retry_after_s))


class _Lines:
    """The open lines of one batch, and those that are being done."""

    def __init__(self, runner: BatchRunner, database: Database, row: dict[str, Any]) -> None:
        self._runner = runner
        self._database = database
        self._row = row
        self._taken: set[int] = set()
        self._next: list[BatchLine] = []
        self._reading = asyncio.Lock()

    async def do_all(self, n_parallel: int) -> None:
        """Do every open line. Raises: KeyGone, and what the store raises."""
        name = f"batch-line-{self._row['id']}"
        tasks = [asyncio.create_task(self._work(), name=name) for _ in range(n_parallel)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while (line := await self._take()) is not None:
            request = await asyncio.to_thread(batch_lines.parsed, line.text)
            text, is_error = await self._answered(request)
            await self._record(line.position, request.custom_id, text, is_error)
            self._taken.discard(line.position)

    async def _record(self, position: int, custom_id: str, text: str, is_error: bool) -> None:
        """Store an answer, or that there is no room for it."""
        batch_id, owner = self._row["id"], self._row["owner"]
        most = self._runner.max_owner_bytes

        def record(db: Any) -> None:
            done, has_failed = BatchLine(position, text), is_error
            n_bytes = len(text.encode()) + 1
            if batches.n_bytes_of(db, owner) + n_bytes > most:
                message = (
                    f"The answer has {n_bytes} bytes, and the files of this owner have at most {most} "
                    "in all: delete some and send the request again, or raise batch.max_owner_bytes."
                )
                refused = batch_lines.unanswered(custom_id, "storage_full", message)
                done, has_failed = BatchLine(position, refused), True
            batches.record(db, batch_id, done, is_error=has_failed)

        await self._database.write_async(record)

    async def _answered(self, request: LineRequest) -> tuple[str, bool]:
        """The line of the answer, and whether it is an error. Raises: KeyGone, and what the store raises."""
        try:
            answer = await self._runner.answer(self._row, request.body)
            text = await asyncio.to_thread(
                batch_lines.answered,
                request.custom_id,
                answer.status,
                answer.request_id,
                answer.body,
            )
        except (EdgeAgentError, KeyGone):
            raise
        except Exception:
            logger.exception("batch_line_failed id=%s", self._row["id"])
            message = "The request ended by an error of the server: send it again."
            return batch_lines.unanswered(request.custom_id, "internal_error", message), True
        return text, answer.status >= 400

    async def _take(self) -> BatchLine | None:
        """The next open line; None when there are no more."""
        async with self._reading:
            if not self._next:
                besides = tuple(self._taken)
                found = await self._database.read_async(
                    lambda db: batches.open_lines(db, self._row["id"], FETCH, besides)
                )
                self._next = found[::-1]
            if not self._next:
                return None
            line = self._next.pop()
            self._taken.add(line.position)
            return line
