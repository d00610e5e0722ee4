"""Moves the computed state of tokens between engines and encrypted files, and measures how fast that is.

Keys never leave the daemon: the engine exchanges plain pieces.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgeagent.engine.client import EngineClient
from edgeagent.settings.store import StoreSettings
from edgeagent.store import prefix_files
from edgeagent.store.database import Database
from edgeagent.store.prefixes import PrefixChain, SealedState, State
from edgeagent.types.answer import Usage
from edgeagent.types.kv_state import Cells, LoadCellsSpec, ReadCellsSpec

RECORD_BYTES = 2 << 20  # bytes that the engine sends between two of its steps
WINDOW = 3  # records on their way to the engine at once
LEAST_NEW = 48  # fewer tokens are not worth a write or a read
FIRST_READ_BYTES_S = 50e6  # of an SD card, until it is measured
FIRST_PREFILL_TOK_S = 1000.0


class PrefixTransfer:
    """Event loop's thread only, except `tidy`; reading and writing happen on threads.

    `identity` names a model file by its content. Without a database, or with 0 bytes, `database` is None and
    nothing is stored.
    """

    def __init__(
        self, database: Database | None, settings: StoreSettings, identity: Callable[[str], str]
    ) -> None:
        self.settings = settings.prefixes
        self.database = database if self.settings.max_bytes else None
        self._reserve_bytes = settings.reserve_bytes
        self._identity = identity
        self._folder = database.files.prefixes if database is not None else Path()
        self._writing: set[str] = set()
        self._lock = threading.Lock()
        self._read_bytes_s = FIRST_READ_BYTES_S
        self._prefill_tok_s: dict[str, float] = {}
        self.n_bytes_written = 0

    # ---- rates

    def observe(self, model_id: str, usage: Usage) -> None:
        """Learn how fast a model prefills."""
        n_new = usage.n_prompt - usage.n_cached
        took_s = (usage.ttft_ms - usage.queue_ms) / 1e3
        if n_new >= LEAST_NEW and took_s > 0:
            self._prefill_tok_s[model_id] = n_new / took_s

    def expect(self, model_id: str, prefill_tok_s: float) -> None:
        """The rate that was measured before this start; counts until the first measurement."""
        self._prefill_tok_s.setdefault(model_id, prefill_tok_s)

    def prefill_tok_s(self, model_id: str) -> float | None:
        """Measured tokens a second; None before the first measurement."""
        return self._prefill_tok_s.get(model_id)

    def saving_s(self, model_id: str, n_tokens: int, n_bytes: float) -> float:
        """How much sooner tokens are there if they are read in place of computed, by the rates so far."""
        prefill_tok_s = self._prefill_tok_s.get(model_id, FIRST_PREFILL_TOK_S)
        return n_tokens / prefill_tok_s - n_bytes / self._read_bytes_s

    # ---- into the engine

    def is_worth(self, client: EngineClient, chain: PrefixChain[State], n_cached: int) -> bool:
        """Whether reading takes less time than computing the missing tokens."""
        n_missing = len(chain.tokens) - n_cached
        size = sum(piece.n_bytes for piece in chain.pieces)
        n_bytes = size * n_missing / max(1, len(chain.tokens))
        least = min(LEAST_NEW, self.settings.min_tokens)
        model_id = client.config.model_id
        return n_missing >= least and self.saving_s(model_id, n_missing, n_bytes) > 0

    async def send(
        self, client: EngineClient, scope: str, chain: PrefixChain[State], n_cached: int
    ) -> tuple[int, int]:
        """Send the engine what it lacks of a chain, record after record, a few ahead of it.

        Returns the tokens that the engine then has, and the bytes sent. Raises: StoreDamaged, OSError, and
        what the worker raises.
        """
        started = time.monotonic()
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
                sent.append(asyncio.create_task(self.ask(client, spec), name="prefix-record"))
            while sent:
                n_now = (await sent.popleft()).n
        finally:
            for task in sent:
                task.cancel()
        if n_bytes:
            self._read_bytes_s = n_bytes / max(time.monotonic() - started, 1e-3)
        return n_now, n_bytes

    # ---- out of the engine

    async def fetch(
        self,
        client: EngineClient,
        request_id: int,
        state: SealedState,
        n_tokens: int,
        cell_bytes: int,
    ) -> int | None:
        """Write what the engine has of an ended request, from the state's first token to `n_tokens`, to the
        state's file. Returns its bytes; None if the engine has it no longer.

        Raises: OSError, and what the worker raises.
        """
        step = max(1, RECORD_BYTES // cell_bytes)
        n_bytes = 0
        is_whole = False
        try:
            for number, first in enumerate(range(state.first, n_tokens, step)):
                last = min(first + step, n_tokens)
                lifted = await self.ask(client, ReadCellsSpec(request_id, first, last))
                if not lifted.data:
                    return None
                n_bytes += await asyncio.to_thread(
                    prefix_files.append, self._folder, state, number, first, last, lifted.data
                )
            is_whole = True
        finally:
            self.n_bytes_written += n_bytes
            if not is_whole:  # the disk may be full
                await asyncio.to_thread(prefix_files.remove, self._folder, state)
        return n_bytes

    async def has_room(self, n_bytes: int) -> bool:
        """Whether a write leaves the reserve of the disk free and stays within the limit."""
        if n_bytes > self.settings.max_bytes:
            return False
        usage = await asyncio.to_thread(shutil.disk_usage, self._folder.parent)
        return usage.free - n_bytes > self._reserve_bytes

    # ---- files

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Spare a file whose row comes later."""
        with self._lock:
            self._writing.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._writing.discard(name)

    def tidy(self) -> int:
        """Delete files without rows. Blocks; any thread. Returns how many."""
        if self.database is None:
            return 0
        with self._lock:
            spare = frozenset(self._writing)
        return prefix_files.tidy(self._folder, self.database, spare)

    # ---- helpers

    def fits(self, client: EngineClient) -> str:
        """A digest of what must be equal for an engine to take a state: the file, its settings and the
        library."""
        what = f"{self._identity(client.config.model_id)} {client.facts.state_kind}"
        return sha256(what.encode()).hexdigest()

    async def ask(self, client: EngineClient, question: Any) -> Cells:
        answer = await client.ask(question)
        assert isinstance(answer, Cells)
        return answer
