"""What was computed of system prompts and tools, on disk, so that the first chat after a restart finds it.

    note      after an answer: count its head (system messages, tools); one that returns often enough is
              written, once
    recall    before a request: the first one with a head in the life of a worker sends it what is on disk
    forget    after a deletion

A head belongs to the API key that sent it: another key neither reads it nor can tell by time that it exists.
The tokens that are kept end before the first turn, so nothing that a user said is in them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import Counter, deque
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, StoreDamaged
from edgeagent.serving.prefix_transfer import PrefixTransfer
from edgeagent.serving.prompt_heads import PromptHead, Sightings, head_of
from edgeagent.store import prefixes, warm_prefixes
from edgeagent.store.prefixes import PrefixChain
from edgeagent.store.sql import now_ms
from edgeagent.store.warm_prefixes import WarmEntry, WarmPrefix
from edgeagent.types.answer import Usage
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.kv_state import CachedLengthSpec, CachedTokensSpec
from edgeagent.types.unary_requests import PromptHeadSpec

logger = logging.getLogger(__name__)

MAX_WAITING = 4  # heads that wait to be written; others come again
ASK_AGAIN_S = 60.0  # a head that was not used for so long may have left the KV cache
TOUCH_INTERVAL_MS = 86_400_000  # a head in use is written down as used once a day


class Watch(NamedTuple):
    """A request whose head may be kept. `epoch`: the owner's deletions before it."""

    head: PromptHead
    owner: str
    epoch: int


class WarmPrefixes:
    """Event loop's thread only."""

    def __init__(self, transfer: PrefixTransfer) -> None:
        self._transfer = transfer
        self._settings = transfer.settings
        self._database = transfer.database if self._settings.system_prompts else None
        self._is_unconditional = self._settings.min_saving_ms == 0
        self._sightings = Sightings(self._settings)
        self._entries: dict[PromptHead, WarmEntry] = {}
        self._used: WeakKeyDictionary[EngineClient, dict[PromptHead, float]] = WeakKeyDictionary()
        self._loads: dict[tuple[int, PromptHead], asyncio.Task[None]] = {}
        self._unproven: set[PromptHead] = set()  # sent to an engine, not yet met by a prompt
        self._epochs: Counter[str | None] = Counter()
        self._waiting: deque[tuple[EngineClient, int, Watch, GenerateSpec]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        if self._database is not None:
            self._reading = asyncio.create_task(self._read_entries(), name="warm-prefixes")

    async def _read_entries(self) -> None:
        assert self._database is not None
        try:
            rows = await self._database.read_async(warm_prefixes.entries)
        except EdgeAgentError as exc:
            logger.warning("warm_prefixes_not_read code=%s", exc.code)
            return
        for row in rows:
            self._entries[PromptHead(row.scope, row.model, row.digest)] = row
            self._transfer.expect(row.model, row.prefill_tok_s)

    # ---- into the engine

    async def recall(self, client: EngineClient, owner: str, spec: GenerateSpec) -> Watch | None:
        """Before a request: send the engine what is on disk of its head. Returns what `note` needs; None if
        nothing is to be kept of it. Does not raise: without it, the head is computed."""
        if self._database is None or client.facts.state_kind is None:
            return None
        head = head_of(client.config.model_id, spec, self._settings.min_tokens)
        if head is None:
            return None
        watch = Watch(head, owner, self._epoch(owner))
        if self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)
        entry = self._entries.get(head)
        if entry is not None and self._may_lack(client, head):
            key = (id(client), head)
            if (load := self._loads.get(key)) is None:
                load = self._later(self._load(client, entry))
                self._loads[key] = load
                load.add_done_callback(lambda _: self._loads.pop(key, None))
            await asyncio.shield(load)  # requests that come together share it
        return watch

    def _may_lack(self, client: EngineClient, head: PromptHead) -> bool:
        used_s = self._used.get(client, {}).get(head)
        return used_s is None or time.monotonic() - used_s > ASK_AGAIN_S

    async def _load(self, client: EngineClient, entry: WarmEntry) -> None:
        head = PromptHead(entry.scope, entry.model, entry.digest)
        if entry.fits != self._transfer.fits(client):
            await self._drop(head, entry, "other_model_or_library")
            return
        started = time.monotonic()
        try:
            n_sent, n_bytes = await self._send(client, entry)
        except (StoreDamaged, OSError) as exc:
            logger.warning("warm_prefix_unusable id=%s reason=%s", entry.id, type(exc).__name__)
            await self._drop(head, entry, "damaged")
        except EdgeAgentError as exc:
            logger.info("warm_prefix_not_recalled code=%s", exc.code)
        else:
            self._used.setdefault(client, {})[head] = time.monotonic()
            if n_sent:
                self._unproven.add(head)
                logger.info(
                    "warm_prefix_recalled id=%s n_tokens=%s n_bytes=%s took_ms=%.0f",
                    entry.id, n_sent, n_bytes, 1e3 * (time.monotonic() - started),
                )  # fmt: skip

    async def _send(self, client: EngineClient, entry: WarmEntry) -> tuple[int, int]:
        """The tokens and bytes that the engine got. Raises as `PrefixTransfer.send`."""
        assert self._database is not None
        found = await self._database.read_async(lambda db: warm_prefixes.find(db, entry.id))
        if found is None:  # made room for others
            self._entries.pop(PromptHead(entry.scope, entry.model, entry.digest), None)
            return 0, 0
        chain = PrefixChain([found], prefixes.ids(found.tokens))
        held = await self._transfer.ask(client, CachedLengthSpec(entry.scope, found.tokens))
        is_worth = self._transfer.is_worth(client, chain, held.n) or self._is_unconditional
        if held.n >= len(chain.tokens) or not is_worth:
            return 0, 0
        n_now, n_bytes = await self._transfer.send(client, entry.scope, chain, held.n)
        return n_now - held.n, n_bytes

    # ---- out of the engine

    def note(
        self, client: EngineClient, request_id: int, watch: Watch, spec: GenerateSpec, usage: Usage
    ) -> None:
        """After an answer: count its head, and queue it where it is worth a file."""
        head = watch.head
        self._transfer.observe(head.model_id, usage)
        self._used.setdefault(client, {})[head] = time.monotonic()
        entry = self._entries.get(head)
        if entry is not None:
            self._note_use(head, entry, usage)
            return
        now_s = time.monotonic()
        if not self._sightings.add(head, watch.owner, now_s) or len(self._waiting) >= MAX_WAITING:
            return
        self._sightings.postpone(head, now_s)
        prompt = spec.prompts[0]
        brief = msgspec.structs.replace(prompt, messages=prompt.system_messages, prefill="")
        self._waiting.append((client, request_id, watch, GenerateSpec(
            prompts=[brief], tools=spec.tools, scope=spec.scope
        )))  # fmt: skip
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work_off(), name="warm-prefix")

    def _note_use(self, head: PromptHead, entry: WarmEntry, usage: Usage) -> None:
        if head in self._unproven:
            self._unproven.discard(head)
            if usage.n_cached < entry.n_tokens // 2:  # as of a template that states the day
                self._later(self._drop(head, entry, "other_tokens"))
                return
        if now_ms() - entry.used_ms > TOUCH_INTERVAL_MS:
            self._entries[head] = msgspec.structs.replace(entry, used_ms=now_ms())
            self._later(self._touch(entry.id))

    async def _work_off(self) -> None:
        while self._waiting:
            client, request_id, watch, spec = self._waiting.popleft()
            try:
                refusal = await self._keep(client, request_id, watch, spec)
            except (EdgeAgentError, OSError) as exc:
                refusal = type(exc).__name__
            except Exception:
                logger.exception("warm_prefix_failed")
                continue
            if refusal is not None:
                logger.info("warm_prefix_not_kept reason=%s", refusal)

    async def _keep(
        self, client: EngineClient, request_id: int, watch: Watch, spec: GenerateSpec
    ) -> str | None:
        """Write the state of a head. Returns why not."""
        assert self._database is not None
        head = watch.head
        tokens = array("i", await client.ask(PromptHeadSpec(request=spec)))
        held = await self._transfer.ask(client, CachedTokensSpec(request_id))
        if not held.tokens:
            self._sightings.postpone(head, time.monotonic(), 0.0)  # the next request may do
            return "evicted"
        if prefixes.ids(held.tokens)[: len(tokens)] != tokens:
            return "prompt_begins_otherwise"
        prefill_tok_s = self._transfer.prefill_tok_s(head.model_id)
        if prefill_tok_s is None:
            self._sightings.postpone(head, time.monotonic(), 0.0)
            return "unmeasured"
        n_bytes = len(tokens) * held.n
        saving_s = self._transfer.saving_s(head.model_id, len(tokens), n_bytes)
        is_worth = 1e3 * saving_s >= self._settings.min_saving_ms or self._is_unconditional
        if len(tokens) < self._settings.min_tokens or not is_worth:
            return "not_worth_it"
        if not await self._transfer.has_room(n_bytes):
            return "no_room"
        made_ms = now_ms()
        prefix = WarmPrefix(
            id=prefixes.new_name(), owner=watch.owner, scope=head.scope, model=head.model_id,
            digest=head.digest, fits=self._transfer.fits(client), tokens=tokens.tobytes(),
            key=prefixes.new_key(), n_bytes=0, prefill_tok_s=prefill_tok_s, made_ms=made_ms, used_ms=made_ms,
        )  # fmt: skip
        with self._transfer.writing(prefix.id):
            is_kept = await self._write(client, request_id, watch, prefix, held.n)
        await asyncio.to_thread(self._transfer.tidy)
        return None if is_kept else "evicted"

    async def _write(
        self,
        client: EngineClient,
        request_id: int,
        watch: Watch,
        prefix: WarmPrefix,
        cell_bytes: int,
    ) -> bool:
        """Write the file, then the row."""
        assert self._database is not None
        n_tokens = len(prefix.tokens) // 4
        n_bytes = await self._transfer.fetch(client, request_id, prefix, n_tokens, cell_bytes)
        if n_bytes is None or self._epoch(watch.owner) != watch.epoch:
            return False
        whole = msgspec.structs.replace(prefix, n_bytes=n_bytes)
        most = self._settings.max_bytes

        def put(db: Any) -> None:
            warm_prefixes.put(db, whole)
            prefixes.shrink(db, most)

        await self._database.write_async(put)
        if self._epoch(watch.owner) != watch.epoch:  # deleted meanwhile
            await self._database.write_async(lambda db: warm_prefixes.forget(db, [whole.id]))
            return False
        self._entries[watch.head] = WarmEntry(
            id=whole.id, owner=whole.owner, scope=whole.scope, model=whole.model, digest=whole.digest,
            fits=whole.fits, n_tokens=n_tokens, prefill_tok_s=whole.prefill_tok_s, used_ms=whole.used_ms,
        )  # fmt: skip
        logger.info("warm_prefix_kept id=%s n_tokens=%s n_bytes=%s", whole.id, n_tokens, n_bytes)
        return True

    # ---- forgetting

    async def forget(self, owner: str | None) -> None:
        """Something of this owner (None: of anybody) was deleted, which a system prompt may have repeated.
        Rows are gone when this returns; files go with the next `tidy`."""
        self._epochs[owner] += 1
        self._sightings.forget(owner)
        gone = [h for h, entry in self._entries.items() if owner is None or entry.owner == owner]
        for head in gone:
            del self._entries[head]
        if self._database is not None and (gone or owner is None):
            await self._database.write_async(
                lambda db: warm_prefixes.forget_owner(db, owner), essential=True
            )

    def _epoch(self, owner: str) -> int:
        return self._epochs[owner] + self._epochs[None]

    async def _drop(self, head: PromptHead, entry: WarmEntry, reason: str) -> None:
        """Delete a row that is of no use, and its file."""
        assert self._database is not None
        if self._entries.get(head) is entry:
            del self._entries[head]
        logger.info("warm_prefix_dropped id=%s reason=%s", entry.id, reason)
        try:
            await self._database.write_async(lambda db: warm_prefixes.forget(db, [entry.id]))
            await asyncio.to_thread(self._transfer.tidy)
        except (EdgeAgentError, OSError) as exc:
            logger.warning("warm_prefix_not_dropped reason=%s", type(exc).__name__)

    async def _touch(self, prefix_id: str) -> None:
        assert self._database is not None
        try:
            await self._database.write_async(
                lambda db: warm_prefixes.touch(db, prefix_id, now_ms())
            )
        except EdgeAgentError as exc:
            logger.debug("warm_prefix_not_touched code=%s", exc.code)

    async def close(self) -> None:
        """Finish what is being written, and start nothing else."""
        self._waiting.clear()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=5.0)
            self._worker.cancel()
        tasks = [t for t in (*self._tasks, self._worker, self._reading) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _later(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
