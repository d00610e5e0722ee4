"""The computed state of stored conversations, on disk, so that they continue at once after a restart.

    remember    after an answer: read its new tokens' state from the engine, in pieces, encrypted and written
    recall      before the next answer: send the engine the pieces that it does not have
    forget      after a deletion: triggers of the store delete rows, this module deletes files

The state of each token is written once. Keys never leave the daemon: the engine exchanges plain pieces.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, StoreDamaged
from edgeagent.settings.store import StoreSettings
from edgeagent.store import prefix_files, prefixes
from edgeagent.store.database import Database
from edgeagent.store.prefixes import PrefixChain, PrefixPiece
from edgeagent.store.sql import now_ms
from edgeagent.types.answer import Usage
from edgeagent.types.kv_state import (
    CachedLengthSpec,
    CachedTokensSpec,
    Cells,
    LoadCellsSpec,
    ReadCellsSpec,
)

logger = logging.getLogger(__name__)

RECORD_BYTES = 2 << 20  # bytes that the engine sends between two of its steps
WINDOW = 3  # records on their way to the engine at once
LEAST_NEW = 48  # fewer tokens are not worth a write or a read
MAX_WAITING = 16  # answers that wait to be remembered; further ones are not
TIDY_INTERVAL_S = 3600.0
FIRST_READ_BYTES_S = 50e6  # of an SD card, until it is measured
FIRST_PREFILL_S = 1000.0


@dataclass(frozen=True)
class ThreadPosition:
    """A position in a stored conversation: `response_id` is the new response, `previous_id` the one before
    it.

    `epoch` is the owner's deletion counter from before the history was read.
    """

    owner: str
    scope: str
    thread: str
    response_id: str
    previous_id: str | None
    epoch: int


class PrefixStore:
    """Event loop's thread only, except `tidy`; reading and writing happen on threads.

    `identity` names a model file by its content. Without a database, or with 0 bytes, nothing is stored.
    """

    def __init__(
        self, database: Database | None, settings: StoreSettings, identity: Callable[[str], str]
    ) -> None:
        self._database = database if settings.prefixes.max_bytes else None
        self._settings = settings
        self._least = min(LEAST_NEW, settings.prefixes.min_tokens)
        self._identity = identity
        self._folder = database.files.prefixes if database is not None else Path()
        self._epochs: Counter[str] = Counter()
        self._n_erased = 0
        self._waiting: deque[tuple[EngineClient, int, ThreadPosition]] = deque()
        self._writing: set[str] = set()
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._is_closing = False
        self._read_bytes_s = FIRST_READ_BYTES_S
        self._prefill_s: dict[str, float] = {}
        self.n_bytes_written = 0

    def epoch(self, owner: str) -> int:
        """The number of deletions of this owner's data. Read it before a history is read."""
        return self._epochs[owner] + self._n_erased

    # ---- into the engine

    async def recall(self, client: EngineClient, position: ThreadPosition) -> int:
        """Send the engine what it lacks of a conversation. Gives the number of tokens sent; after an error
        the answer goes on without them."""
        if self._database is None or client.facts.state_kind is None:
            return 0
        started = time.monotonic()
        try:
            chain = await self._chain(client, position)
            if chain is None:
                return 0
            n_cached = (
                await self._ask(client, CachedLengthSpec(position.scope, chain.tokens.tobytes()))
            ).n
            if not self._is_worth(client, chain, n_cached):
                return 0
            n_now, n_bytes = await self._put_back(client, position.scope, chain, n_cached)
        except (StoreDamaged, OSError) as exc:
            logger.warning(
                "prefix_unusable thread=%s reason=%s", position.thread, type(exc).__name__
            )
            await self._drop(position.thread)
            return 0
        except EdgeAgentError as exc:
            logger.info("prefix_not_recalled code=%s", exc.code)
            return 0
        took_s = time.monotonic() - started
        self._read_bytes_s = n_bytes / max(took_s, 1e-3)
        self._later(self._touch(position.thread))
        logger.info(
            "prefix_recalled thread=%s n_tokens=%s n_bytes=%s took_ms=%.0f",
            position.thread, n_now - n_cached, n_bytes, 1e3 * took_s,
        )  # fmt: skip
        return n_now - n_cached

    async def _chain(self, client: EngineClient, position: ThreadPosition) -> PrefixChain | None:
        """The pieces up to the previous response; without one, the newest chain of the conversation."""
        assert self._database is not None
        fits = self._fits(client)
        rows = await self._database.read_async(
            lambda db: prefixes.of_thread(db, position.owner, position.scope, position.thread, fits)
        )
        found = list(prefixes.chains(rows).values())
        for chain in found:
            if chain.pieces[-1].response_id == position.previous_id:
                return chain
        return found[-1] if found else None

    def _is_worth(self, client: EngineClient, chain: PrefixChain, n_cached: int) -> bool:
        """Whether reading takes less time than computing the missing tokens, by the rates measured so far."""
        n_missing = len(chain.tokens) - n_cached
        size = sum(piece.n_bytes for piece in chain.pieces)
        n_bytes = size * n_missing / max(1, len(chain.tokens))
        prefill_s = self._prefill_s.get(client.config.model_id, FIRST_PREFILL_S)
        return n_missing >= self._least and n_bytes / self._read_bytes_s < n_missing / prefill_s

    async def _put_back(
        self, client: EngineClient, scope: str, chain: PrefixChain, n_cached: int
    ) -> tuple[int, int]:
        """Send record after record, a few ahead of the engine. Gives the tokens that the engine then has,
        and the bytes sent."""
        n_now, n_bytes = n_cached, 0
        sent: deque[asyncio.Task[Cells]] = deque()
        try:
            for record in await asyncio.to_thread(
                prefix_files.records, self._folder, chain, n_cached
            ):
                if len(sent) == WINDOW:
                    n_now = (await sent.popleft()).n
                    if n_now <= n_cached:
                        break  # the engine has no room
                data = await asyncio.to_thread(record.read)
                n_bytes += len(data)
                spec = LoadCellsSpec(
                    scope=scope, tokens=record.tokens.tobytes(), first=record.first, data=data
                )
                sent.append(asyncio.create_task(self._ask(client, spec), name="prefix-record"))
            while sent:
                n_now = (await sent.popleft()).n
        finally:
            for task in sent:
                task.cancel()
        return n_now, n_bytes

    # ---- out of the engine

    def remember(self, client: EngineClient, request_id: int, position: ThreadPosition) -> None:
        """Queue the new tokens of an answer that has ended and is stored; they are written in the
        background."""
        if self._database is None or self._is_closing or client.facts.state_kind is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            logger.info("prefix_not_kept reason=too_many_wait")
            return
        self._waiting.append((client, request_id, position))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work_off(), name="prefixes")

    async def _work_off(self) -> None:
        while self._waiting:
            client, request_id, position = self._waiting.popleft()
            try:
                await self._keep(client, request_id, position)
            except (EdgeAgentError, OSError) as exc:
                logger.info("prefix_not_kept reason=%s", type(exc).__name__)
            except Exception:
                logger.exception("prefix_failed")

    async def _keep(self, client: EngineClient, request_id: int, position: ThreadPosition) -> None:
        assert self._database is not None
        held = await self._ask(client, CachedTokensSpec(request_id))
        tokens = prefixes.ids(held.tokens)
        if len(tokens) < self._settings.prefixes.min_tokens:
            return
        fits = self._fits(client)
        rows = await self._database.read_async(
            lambda db: prefixes.of_thread(db, position.owner, position.scope, position.thread, fits)
        )
        base, first = prefixes.best(prefixes.chains(rows), tokens)
        n_bytes = (len(tokens) - first) * held.n
        is_long = len(rows) >= prefixes.MOST_PIECES
        if len(tokens) - first < self._least or is_long or not await self._has_room(n_bytes):
            return
        piece = PrefixPiece(
            id=prefixes.new_name(), owner=position.owner, scope=position.scope, thread=position.thread,
            response_id=position.response_id, fits=fits, base_id=base.id if base else None, first=first,
            tokens=tokens[first:].tobytes(), key=prefixes.new_key(), n_bytes=0, used_ms=now_ms(),
        )  # fmt: skip
        with self._lock:
            self._writing.add(piece.id)
        try:
            is_kept = await self._write(client, request_id, piece, len(tokens), held.n)
            if is_kept and self.epoch(position.owner) != position.epoch:
                # Something was deleted since the history was read, and the state may depend on it.
                await self._database.write_async(lambda db: prefixes.forget(db, [piece.id]))
        finally:
            with self._lock:
                self._writing.discard(piece.id)
        await asyncio.to_thread(self.tidy)

    async def _write(
        self,
        client: EngineClient,
        request_id: int,
        piece: PrefixPiece,
        n_tokens: int,
        cell_bytes: int,
    ) -> bool:
        """Write the records of a piece, then its row. False: the answer has been deleted, or has left the
        cache."""
        assert self._database is not None
        step = max(1, RECORD_BYTES // cell_bytes)
        n_bytes = 0
        for number, first in enumerate(range(piece.first, n_tokens, step)):
            last = min(first + step, n_tokens)
            lifted = await self._ask(client, ReadCellsSpec(request_id, first, last))
            if not lifted.data:
                return False
            n_bytes += await asyncio.to_thread(
                prefix_files.append, self._folder, piece, number, first, last, lifted.data
            )
        whole = msgspec.structs.replace(piece, n_bytes=n_bytes)
        most = self._settings.prefixes.max_bytes

        def keep(db: Any) -> bool:
            is_kept = prefixes.insert(db, whole)
            prefixes.touch(db, whole.thread, now_ms())
            prefixes.shrink(db, most)
            return is_kept

        is_kept = await self._database.write_async(keep)
        self.n_bytes_written += n_bytes
        logger.info(
            "prefix_kept thread=%s first=%s n_tokens=%s n_bytes=%s",
            piece.thread, piece.first, n_tokens, n_bytes,
        )  # fmt: skip
        return is_kept

    async def _has_room(self, n_bytes: int) -> bool:
        """Whether a write leaves the reserve of the disk free and stays within the limit."""
        if n_bytes > self._settings.prefixes.max_bytes:
            return False
        usage = await asyncio.to_thread(shutil.disk_usage, self._folder.parent)
        return usage.free - n_bytes > self._settings.reserve_bytes

    # ---- forgetting

    def forget(self, owner: str) -> None:
        """Something of this owner was deleted: do not store answers that may have read it, and delete files
        without rows."""
        self._epochs[owner] += 1
        if self._database is not None:
            self._later(asyncio.to_thread(self.tidy))

    async def erased(self) -> None:
        """Something was erased, whoever owned it. Its files are gone when this returns."""
        self._n_erased += 1
        await asyncio.to_thread(self.tidy)

    def tidy(self) -> int:
        """Delete files without rows. Blocks; any thread."""
        if self._database is None:
            return 0
        with self._lock:
            spare = frozenset(self._writing)
        return prefix_files.tidy(self._folder, self._database, spare)

    async def keep_tidy(self) -> None:
        """Delete the files of what retention has deleted, once an hour."""
        while self._database is not None:
            try:
                await asyncio.to_thread(self.tidy)
            except (EdgeAgentError, OSError) as exc:
                logger.warning("prefixes_not_tidied reason=%s", type(exc).__name__)
            await asyncio.sleep(TIDY_INTERVAL_S)

    def start(self) -> None:
        if self._database is not None:
            self._later(self.keep_tidy())

    async def close(self) -> None:
        """Finish the piece that is being written, and start no other."""
        self._is_closing = True
        self._waiting.clear()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=5.0)
            self._worker.cancel()
        tasks = [task for task in (*self._tasks, self._worker) if task is not None]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- helpers

    def observe(self, model_id: str, usage: Usage) -> None:
        """Learn how fast a model prefills."""
        n_new = usage.n_prompt - usage.n_cached
        took_s = (usage.ttft_ms - usage.queue_ms) / 1e3
        if n_new >= LEAST_NEW and took_s > 0:
            self._prefill_s[model_id] = n_new / took_s

    def _fits(self, client: EngineClient) -> str:
        """A digest of what must be equal for an engine to take a state: the file, its settings and the
        library."""
        what = f"{self._identity(client.config.model_id)} {client.facts.state_kind}"
        return sha256(what.encode()).hexdigest()

    async def _ask(self, client: EngineClient, question: Any) -> Cells:
        answer = await client.ask(question)
        assert isinstance(answer, Cells)
        return answer

    async def _drop(self, thread: str) -> None:
        assert self._database is not None
        try:
            await self._database.write_async(lambda db: prefixes.forget_thread(db, thread))
        except EdgeAgentError as exc:
            logger.warning("prefix_not_dropped code=%s", exc.code)
        else:
            self._later(asyncio.to_thread(self.tidy))

    async def _touch(self, thread: str) -> None:
        assert self._database is not None
        try:
            await self._database.write_async(lambda db: prefixes.touch(db, thread, now_ms()))
        except EdgeAgentError as exc:
            logger.debug("prefix_not_touched code=%s", exc.code)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
