"""The life cycle of stored data apart from requests: retention, exports, erasure, audit anchor, backups.

overdue  at the start: if the last sweep is long ago (the device was off, or this is an older copy of
         the database), delete rows over their age before anything is served
sweep    each hour: delete rows over their age, then publish the head of the audit, then a backup if due
watch    after an erasure by the command line, clear what is held outside the database
erase    one at a time, on a thread; at most one of each owner may wait; the hub clears other places
export   in pages, so that nobody waits for it; ends if the data it reads is erased
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeagent.errors import EdgeAgentError, Erased, ErasureRunning, NotFound, StoreOff
from edgeagent.settings import Settings
from edgeagent.store import audit, audit_anchor, export
from edgeagent.store.clock import Clock, DeviceClock
from edgeagent.store.database import Database
from edgeagent.store.erasure_hub import DeletedContent, ErasureHub
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.ownership import Selector
from edgeagent.store.retention import Sweeper
from edgeagent.store.sql import now_ms

if TYPE_CHECKING:
    from edgeagent.store.erasure import ErasureReceipt

logger = logging.getLogger(__name__)

FIRST_SWEEP_S = 60.0  # keep the start free of it
WATCH_INTERVAL_S = 2.0
ERASE_RETRY_S = 5.0


async def _nothing() -> None:
    return None


@dataclass(eq=False)
class _Export:
    """An export in progress."""

    selector: Selector
    is_stopped: bool = False


class DataLifecycle:
    """Event loop's thread only; the work is done on threads. `close` may be called twice.

    `hub`: what holds content outside the database. `settle`: writes out what is still in memory; awaited
    before an erasure and an export.
    """

    def __init__(
        self, database: Database | None, settings: Settings, *, hub: ErasureHub | None = None,
        settle: Callable[[], Awaitable[None]] = _nothing, clock: Clock | None = None,
        first_sweep_s: float = FIRST_SWEEP_S,
    ) -> None:  # fmt: skip
        self._given = database
        self._settings = settings
        self._key = audit.key_of(database.secret if database else None)
        self._hub = hub or ErasureHub()
        self._places = ErasureScope(
            settings.state_dir,
            (settings.effective_models_dir,),
            lambda selector: self._hub.forget_from_thread(DeletedContent.erased(selector)),
        )
        self._erasing: set[str] = set()
        self._exports: set[_Export] = set()
        self._settle = settle
        self._clock = clock or DeviceClock()
        self._first_sweep_s = first_sweep_s
        self._one = asyncio.Lock()
        self._stopping = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _database(self) -> Database:
        """Raises: StoreOff."""
        if self._given is None:
            raise StoreOff(
                "This daemon stores nothing (store.enabled = false), so there is no stored data."
            )
        return self._given

    # ---- ages

    async def sweep_overdue(self) -> None:
        """Delete overdue rows before serving, so that nobody sees them; cleaning up after them can wait.

        An older copy of the database, or one that was not swept for long, may have such rows. If this
        fails or the clock is doubted, the next sweep deletes them.
        """
        database = self._given
        if database is None:
            return
        sweeper = self._sweeper(database)
        try:
            if await asyncio.to_thread(sweeper.is_overdue):
                swept = await self._alone(partial(sweeper.sweep, is_brief=True))
                logger.info("retention_swept_first rows=%d", sum(swept.deleted.values()))
        except EdgeAgentError as exc:
            logger.warning("retention_failed code=%s", exc.code)

    def _sweeper(self, database: Database) -> Sweeper:
        return Sweeper(
            database, self._key, self._settings.store.retention.days, self._clock,
            should_stop=self._stopping.is_set,
        )  # fmt: skip

    def start(self) -> None:
        """Start the hourly sweep, unless nothing is stored."""
        self._hub.start()
        if self._given is None:
            return
        for work, name in (
            (self._keep_sweeping(self._given), "retention"),
            (self._watch(self._given.files.erased), "erasure-watch"),
        ):
            self._tasks.add(asyncio.create_task(work, name=name))

    async def close(self) -> None:
        """Stop the sweep between two of its steps."""
        self._stopping.set()
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            self._tasks.clear()
            async with self._one:  # wait for a step that still runs on its thread
                pass

    async def _keep_sweeping(self, database: Database) -> None:
        sweeper = self._sweeper(database)
        await asyncio.sleep(self._first_sweep_s)
        while True:
            try:
                swept = await self._alone(sweeper.sweep)
                for owner in swept.owners:
                    await self._hub.forget(DeletedContent("expire", owner))
                await self._alone(self._anchor)
                await self._alone(self._back_up)
            except EdgeAgentError as exc:
                logger.warning("retention_failed code=%s", exc.code)
            except Exception as exc:
                logger.error("retention_failed", exc_info=exc)
            await asyncio.sleep(max(1.0, sweeper.due_in_s()))

    def _back_up(self) -> None:
        """Make a backup if the newest is too old, is dated in the future, or if the journal has grown long
        (so that entries needed only by the oldest backups can be dropped)."""
        interval_s = 3600 * self._settings.store.backup_hours
        backups = self._database.backups
        newest = max((b.path.stat().st_mtime for b in backups.listed()), default=None)
        is_due = newest is None or not 0 <= time.time() - newest < interval_s
        if interval_s and (is_due or self._database.is_journal_long):
            taken = backups.take()
            logger.info("backup_taken name=%s", taken.path.name)
        if self._database.compact_journal():
            logger.info("journal_compacted")

    async def _watch(self, erased: Path) -> None:
        seen = _touched_ns(erased)
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            if (now := _touched_ns(erased)) != seen:
                seen = now
                await self._hub.forget(DeletedContent("elsewhere"))

    # ---- whose data it is

    async def erase(self, request: ErasureRequest) -> ErasureReceipt:
        """Erase the selected data.

        Raises: ErasureRunning while another erasure of the same owner runs; LegalHold, NotFound, StoreOff,
        and what the store raises.
        """
        database = self._database
        self._hub.start()
        whose = request.selector.owner or f"by {request.actor}"
        if whose in self._erasing:
            raise ErasureRunning(
                "Another erasure of this owner's data is running, and only one may run at a time: try again "
                "when it has ended.",
                retry_after_s=ERASE_RETRY_S,
            )
        self._erasing.add(whose)

        def work() -> ErasureReceipt:
            try:
                from edgeagent.store import erasure  # on this thread: most daemons erase nothing

                return erasure.erase(
                    database, self._key, request, self._places,
                    keep_backups=self._settings.store.n_backups,
                )  # fmt: skip
            finally:
                self._erasing.discard(whose)

        try:
            await self._settle()
        except BaseException:
            self._erasing.discard(whose)
            raise
        receipt: ErasureReceipt = await self._alone(work)
        path = self._settings.effective_audit_anchor
        await self._alone(partial(audit_anchor.publish_done, self._database, self._key, path))
        return receipt

    def shown_to_owner(self, receipt: ErasureReceipt) -> dict[str, Any]:
        """The receipt as shown to a key without the scope `admin`."""
        return receipt.shown_to_owner(self._database.files.database)

    async def export(self, selector: Selector, actor: str) -> AsyncIterator[bytes]:
        """The document in pieces; the export is audited before the first. Raises: NotFound, StoreOff."""
        await self._settle()
        database = self._database

        def begin(conn: Any) -> None:
            from edgeagent.store import erasure

            if not erasure.n_rows(conn, selector):
                raise NotFound(f"Nothing is stored for {selector.named()}: check the spelling.")
            what = erasure.label(self._key, selector)
            audit.append(conn, self._key, actor=actor, action="data.export", object=what)

        await database.write_async(begin, essential=True)

        def read(at: tuple[str, Any] | None) -> export.ExportPage:
            return database.read(lambda conn: export.page(conn, selector, at))

        return self._sent(_Export(selector), export.document(selector, now_ms(), read))

    async def _sent(self, one: _Export, pieces: Any) -> AsyncIterator[bytes]:
        """The pieces of an export, until something that it may contain is erased."""
        self._exports.add(one)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                if one.is_stopped:
                    raise Erased(
                        "Data in this export was erased meanwhile: export again what is left."
                    )
                yield piece
        finally:
            self._exports.discard(one)

    def stop_exports(self, gone: DeletedContent) -> None:
        """Stop exports that may have read the deleted content."""
        for one in self._exports:
            one.is_stopped = one.is_stopped or gone.meets(one.selector)

    async def audit_page(
        self, after: int, limit: int
    ) -> tuple[list[audit.AuditRow], audit.AuditHead]:
        """Rows after `after`, and the head of the whole chain."""
        return await self._database.read_async(
            lambda conn: (audit.page(conn, after, limit), audit.head(conn, self._key))
        )

    def _anchor(self) -> None:
        audit_anchor.publish_head(self._database, self._key, self._settings.effective_audit_anchor)

    async def _alone(self, work: Callable[[], Any]) -> Any:
        """Run `work` on a thread, one at a time, and to its end even if the caller is cancelled."""

        async def run() -> Any:
            async with self._one:
                return await asyncio.to_thread(work)

        return await asyncio.shield(asyncio.create_task(run()))


def _touched_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
