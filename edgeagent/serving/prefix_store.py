"""The computed state of stored conversations, on disk, so that they continue at once after a restart.

    remember    after an answer: read its new tokens' state from the engine, in pieces, encrypted and written
    recall      before the next answer: send the engine the pieces that it does not have
    forget      after a deletion: triggers of the store delete rows, this module deletes files

The state of each token is written once (`prefix_transfer.py`). What is kept of system prompts that belong
to no conversation is `warm`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, StoreDamaged
from edgeagent.serving.prefix_transfer import LEAST_NEW, PrefixTransfer
from edgeagent.serving.warm_prefixes import WarmPrefixes
from edgeagent.settings.store import StoreSettings
from edgeagent.store import prefixes
from edgeagent.store.database import Database
from edgeagent.store.prefixes import PrefixChain, PrefixPiece
from edgeagent.store.sql import now_ms
from edgeagent.types.answer import Usage
from edgeagent.types.kv_state import CachedLengthSpec, CachedTokensSpec

logger = logging.getLogger(__name__)

MAX_WAITING = 16  # answers that wait to be remembered; further ones are not
TIDY_INTERVAL_S = 3600.0


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
        self._transfer = PrefixTransfer(database, settings, identity)
        self._database = self._transfer.database
        self._settings = settings.prefixes
        self._least = min(LEAST_NEW, self._settings.min_tokens)
        self.warm = WarmPrefixes(self._transfer)
        self._epochs: Counter[str] = Counter()
        self._n_erased = 0
        self._waiting: deque[tuple[EngineClient, int, ThreadPosition]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._is_closing = False

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
                await self._transfer.ask(
                    client, CachedLengthSpec(position.scope, chain.tokens.tobytes())
                )
            ).n
            if not self._transfer.is_worth(client, chain, n_cached):
                return 0
            n_now, n_bytes = await self._transfer.send(client, position.scope, chain, n_cached)
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
        self._later(self._touch(position.thread))
        logger.info(
            "prefix_recalled thread=%s n_tokens=%s n_bytes=%s took_ms=%.0f",
            position.thread, n_now - n_cached, n_bytes, 1e3 * took_s,
        )  # fmt: skip
        return n_now - n_cached

    async def _chain(
        self, client: EngineClient, position: ThreadPosition
    ) -> PrefixChain[PrefixPiece] | None:
        """The pieces up to the previous response; without one, the newest chain of the conversation."""
        assert self._database is not None
        fits = self._transfer.fits(client)
        rows = await self._database.read_async(
            lambda db: prefixes.of_thread(db, position.owner, position.scope, position.thread, fits)
        )
        found = list(prefixes.chains(rows).values())
        for chain in found:
            if chain.pieces[-1].response_id == position.previous_id:
                return chain
        return found[-1] if found else None

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
        held = await self._transfer.ask(client, CachedTokensSpec(request_id))
        tokens = prefixes.ids(held.tokens)
        if len(tokens) < self._settings.min_tokens:
            return
        fits = self._transfer.fits(client)
        rows = await self._database.read_async(
            lambda db: prefixes.of_thread(db, position.owner, position.scope, position.thread, fits)
        )
        base, first = prefixes.best(prefixes.chains(rows), tokens)
        n_bytes = (len(tokens) - first) * held.n
        is_long = len(rows) >= prefixes.MOST_PIECES
        if (
            len(tokens) - first < self._least
            or is_long
            or not await self._transfer.has_room(n_bytes)
        ):
            return
        piece = PrefixPiece(
            id=prefixes.new_name(), owner=position.owner, scope=position.scope, thread=position.thread,
            response_id=position.response_id, fits=fits, base_id=base.id if base else None, first=first,
            tokens=tokens[first:].tobytes(), key=prefixes.new_key(), n_bytes=0, used_ms=now_ms(),
        )  # fmt: skip
        with self._transfer.writing(piece.id):
            is_kept = await self._write(client, request_id, piece, len(tokens), held.n)
            if is_kept and self.epoch(position.owner) != position.epoch:
                # Something was deleted since the history was read, and the state may depend on it.
                await self._database.write_async(lambda db: prefixes.forget(db, [piece.id]))
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
        n_bytes = await self._transfer.fetch(client, request_id, piece, n_tokens, cell_bytes)
        if n_bytes is None:
            return False
        whole = msgspec.structs.replace(piece, n_bytes=n_bytes)
        most = self._settings.max_bytes

        def keep(db: Any) -> bool:
            is_kept = prefixes.insert(db, whole)
            prefixes.touch(db, whole.thread, now_ms())
            prefixes.shrink(db, most)
            return is_kept

        is_kept = await self._database.write_async(keep)
        logger.info(
            "prefix_kept thread=%s first=%s n_tokens=%s n_bytes=%s",
            piece.thread, piece.first, n_tokens, n_bytes,
        )  # fmt: skip
        return is_kept

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
        return self._transfer.tidy()

    async def keep_tidy(self) -> None:
        """Delete the files of what retention has deleted, once an hour."""
        while self._database is not None:
            try:
                await asyncio.to_thread(self.tidy)
            except (EdgeAgentError, OSError) as exc:
                logger.warning("prefixes_not_tidied reason=%s", type(exc).__name__)
            await asyncio.sleep(TIDY_INTERVAL_S)

    def start(self) -> None:
        self.warm.start()
        if self._database is not None:
            self._later(self.keep_tidy())

    async def close(self) -> None:
        """Finish the piece that is being written, and start no other."""
        self._is_closing = True
        self._waiting.clear()
        await self.warm.close()
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
        self._transfer.observe(model_id, usage)

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
