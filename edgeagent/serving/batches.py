"""Batches and their files, as their owner sees them. `serving/batch_runner.py` does the requests."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from edgeagent.errors import Conflict, InvalidParameter
from edgeagent.serving import batch_lines
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.settings.batch import BatchSettings
from edgeagent.store import batches, erasure_epochs
from edgeagent.store.batches import BatchBounds, BatchLine, NewBatch, NewFile
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.erasure_epochs import ContentOrigin
from edgeagent.store.row_queries import subject_of
from edgeagent.store.sql import now_ms
from edgeagent.types.caller import Caller
from edgeagent.types.ids import new_id
from edgeagent.types.list_pages import Page, RowPage

HOUR_MS = 3_600_000
MAX_HOURS = 168
PIECE_BYTES = 256 << 10  # of a file that is sent


class BatchFiles:
    """Files of requests and of answers. Event loop's thread only."""

    def __init__(self, archive: Archive, settings: BatchSettings, max_body_bytes: int) -> None:
        self._archive = archive
        self._settings = settings
        self._max_body_bytes = max_body_bytes

    async def add(self, owner: str, name: str, data: bytes) -> dict[str, Any]:
        """Store a file of requests. Raises: InvalidParameter, RateLimited, StoreOff, StorageFull, Erased."""
        lines = await asyncio.to_thread(
            batch_lines.split, data, self._settings.max_requests, self._max_body_bytes
        )
        file = NewFile(id=new_file_id(), owner=owner, name=name[:255], lines=lines)
        bounds = bounds_of(self._settings)
        pseudonym, seen = self._archive.database.journal.pseudonym, erasure_epochs.SEEN.get()

        def add(db: Any) -> None:
            batches.add_file(db, file, bounds, now_ms=now_ms())
            about = ContentOrigin(seen, owner, batches.subjects(db, file.id))
            erasure_epochs.check(db, pseudonym, about)

        await self._archive.write(owner, add)
        return await self.get(owner, file.id)

    async def get(self, owner: str, file_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self._archive.database.read_async(lambda db: batches.file(db, owner, file_id))
        if found is None:
            raise absent(file_id)
        return found

    async def listed(self, owner: str, page: Page, purpose: str | None) -> RowPage:
        return await self._archive.database.read_async(
            lambda db: batches.files(db, owner, page, purpose)
        )

    async def content(self, owner: str, file_id: str) -> AsyncIterator[bytes]:
        """All lines of a file, some at a time. Raises: NotFound."""
        await self.get(owner, file_id)
        return self._pieces(file_id)

    async def _pieces(self, file_id: str) -> AsyncIterator[bytes]:
        found = await self._some(file_id, -1)
        while found:
            yield batch_lines.joined([line.text for line in found])
            found = await self._some(file_id, found[-1].position)

    async def _some(self, file_id: str, after: int) -> list[BatchLine]:
        return await self._archive.database.read_async(
            lambda db: batches.some_lines(db, file_id, after, PIECE_BYTES)
        )

    async def delete(self, owner: str, file_id: str) -> None:
        """Raises: NotFound; Conflict while a batch needs it."""
        await self.get(owner, file_id)
        await self._archive.database.read_async(lambda db: batches.check_unused(db, owner, file_id))
        await self._archive.delete(DeletionTarget("batch_file", file_id, owner))


class Batches:
    """Batches of all owners. `wake` is called for each new one, `stop` for one that is to end; `note` audits.
    Event loop's thread only."""

    def __init__(
        self,
        archive: Archive,
        settings: BatchSettings,
        *,
        wake: Callable[[str], None],
        stop: Callable[[str], None],
        note: Callable[[Caller, str, str], Awaitable[None]],
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._wake = wake
        self._stop = stop
        self._note = note

    async def create(
        self, caller: Caller, file_id: str, endpoint: str, window: str, metadata: dict[str, str]
    ) -> dict[str, Any]:
        """A batch of the requests in a file. Raises: InvalidParameter, RateLimited, NotFound, StoreOff,
        StorageFull, Erased."""
        hours = hours_of(window)
        owner, made_ms = caller.owner, now_ms()
        if endpoint not in batch_lines.ENDPOINTS:
            raise InvalidParameter(
                f"`endpoint` {endpoint[:80]!r} has no batches: use one of "
                f"{', '.join(batch_lines.ENDPOINTS)}.",
                param="endpoint",
            )
        found = await self._archive.database.read_async(lambda db: batches.file(db, owner, file_id))
        if found is None:
            raise absent(file_id)
        if found["purpose"] != "batch":
            raise InvalidParameter(
                f"{file_id} holds answers: name a file that was sent with the purpose `batch`.",
                param="input_file_id",
            )
        batch = NewBatch(
            id=new_id("batch"), owner=owner, key_id=caller.key_id, endpoint=endpoint, window=window,
            input_file_id=file_id, output_file_id=new_file_id(), error_file_id=new_file_id(),
            metadata=metadata, expires_ms=made_ms + hours * HOUR_MS,
        )  # fmt: skip
        bounds = bounds_of(self._settings)
        await self._archive.write(
            owner,
            lambda db: batches.add(db, batch, bounds, now_ms=made_ms),
            subjects=[subject_of(metadata)],
        )
        try:
            await self._note(caller, "batch.create", batch.id)
            return await self.get(owner, batch.id)
        finally:
            self._wake(batch.id)  # it is stored, whether or not it can be noted

    async def get(self, owner: str, batch_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        found = await self._archive.database.read_async(lambda db: batches.get(db, batch_id, owner))
        if found is None:
            raise absent(batch_id)
        return found

    async def listed(self, owner: str, page: Page) -> RowPage:
        return await self._archive.database.read_async(lambda db: batches.listed(db, owner, page))

    async def cancel(self, caller: Caller, batch_id: str) -> dict[str, Any]:
        """Let a batch end; what is answered stays. Raises: NotFound; Conflict for one that has ended."""
        found = await self.get(caller.owner, batch_id)
        is_open = await self._archive.database.write_async(
            lambda db: batches.cancel(db, caller.owner, batch_id, now_ms=now_ms())
        )
        if not is_open and found["status"] not in ("cancelling", "cancelled"):
            raise Conflict(f"{batch_id} is {found['status']} and cannot be cancelled.")
        await self._note(caller, "batch.cancel", batch_id)
        self._stop(batch_id)
        return await self.get(caller.owner, batch_id)


def bounds_of(settings: BatchSettings) -> BatchBounds:
    return BatchBounds(
        n_files=settings.max_files,
        n_bytes=settings.max_owner_bytes,
        n_open=settings.max_open_per_owner,
    )


def hours_of(window: str) -> int:
    """The hours of a completion window such as "24h". Raises: InvalidParameter."""
    digits = window.removesuffix("h")
    if window.endswith("h") and digits.isascii() and digits.isdigit():
        hours = int(digits[:4])
        if 1 <= hours <= MAX_HOURS:
            return hours
    raise InvalidParameter(
        f"`completion_window` is {window[:20]!r}: give hours from 1h to {MAX_HOURS}h, such as 24h.",
        param="completion_window",
    )


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"
