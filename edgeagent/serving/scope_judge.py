"""Judges whether a text was in the scope of the assistant model that has answered it (routing/scope_gate.py).

1. the gate of the model: the file in the state directory, or where that is none or cannot be used, the one
   beside the model
2. the score by words
3. where that leaves it in doubt: the score with the vector of the text, by the sentence encoder that the gate
   was made with. It is a part of the assistants (`edge-encoder`) and loaded only into memory that is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.errors import EdgeAgentError, SettingsError
from edgeagent.serving.engines import Engines
from edgeagent.settings import Settings
from edgeagent.types.intents import Confidence, IntentQuestion
from edgeagent.types.unary_requests import EmbedSpec, Vectors

# Imported by the first request to an assistant model that may hand over.
if TYPE_CHECKING:
    from edgeagent.routing.scope_gate import ScopeGate, ScopeScore

logger = logging.getLogger(__name__)

MAX_CHARS = 1024  # of a text that get a vector
FOLDER, SUFFIX = "scope", ".scope"  # the folder is in the state directory
MAX_PENDING = 8  # texts that are being embedded though nobody waits any more
COOLDOWN_S = 60.0  # after the encoder could not be used, until it is tried again

FileState = tuple[Path, int, int]  # the file, its size and its time


class Models(Protocol):
    """The installed models, as far as this module needs them."""

    def find(self, model_id: str) -> InstalledModel: ...

    def beside_intents(self, model_id: str, suffix: str) -> Path | None: ...

    def part(self, model_id: str) -> InstalledModel | None: ...


class ScopeJudge:
    """Event loop's thread only. A file that cannot be used is logged once, and the probability decides."""

    def __init__(self, engines: Engines, models: Models, settings: Settings) -> None:
        self._engines = engines
        self._models = models
        self._settings = settings.routing.scope
        self._state_dir = settings.state_dir
        self._gates: dict[tuple[str, Path], tuple[FileState, ScopeGate | None]] = {}
        self._pending: set[asyncio.Task[Sequence[float] | None]] = set()
        self._cold_from_s = float("-inf")  # monotonic: when the encoder may be tried again

    async def covers(self, model_id: str, question: IntentQuestion) -> bool:
        """Whether the answer to a question can be judged: one that offers all intents of a domain, and may be
        answered with none."""
        is_whole = all(one.call is None and not one.is_foil for one in question.candidates)
        if not (self._settings.gate and question.may_abstain and is_whole):
            return False
        gate = await self._gate(model_id)
        return gate is not None and gate.has(question.domain or ALL)

    async def score(
        self, model_id: str, question: IntentQuestion, confidence: Confidence
    ) -> ScopeScore | None:
        """The score of a text that was answered; None where it cannot be judged."""
        gate, domain = await self._gate(model_id), question.domain or ALL
        if gate is None:
            return None
        found = gate.score(
            domain, question.text, confidence.intent, confidence.probability, confidence.margin,
            self._settings.max_lost,
        )  # fmt: skip
        if found is None or not found.is_in_doubt:
            return found
        vector = await self._vector(gate.encoder, question.text)
        if vector is None:
            return found
        return gate.with_vector(domain, confidence.intent, found, vector, self._settings.max_lost)

    # ---- 1

    async def _gate(self, model_id: str) -> ScopeGate | None:
        own = self._state_dir / FOLDER / f"{model_id}{SUFFIX}"
        for path in (own, self._models.beside_intents(model_id, SUFFIX)):
            state = _state_of(path)
            if state is not None and (gate := await self._read(model_id, state)) is not None:
                return gate
        return None

    async def _read(self, model_id: str, state: FileState) -> ScopeGate | None:
        """The gate in a file, which is read again when it has changed."""
        known = self._gates.get((model_id, state[0]))
        if known is None or known[0] != state:
            sha256 = self._models.find(model_id).sha256 or ""
            gate = await asyncio.to_thread(_read, state[0], sha256)
            known = self._gates[model_id, state[0]] = (state, gate)
        return known[1]

    # ---- 3

    async def _vector(self, encoder: str, text: str) -> Sequence[float] | None:
        """The vector of a text; None without the encoder, or where that takes too long."""
        is_wanted = self._settings.vectors and time.monotonic() >= self._cold_from_s
        if not is_wanted or self._models.part(encoder) is None or len(self._pending) >= MAX_PENDING:
            return None
        # Not cancelled after the wait: the model may be loading, and is ready for the next text.
        task = asyncio.create_task(self._embedded(encoder, text), name="scope-vector")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.wait({task}, timeout=self._settings.vector_timeout_s)
        return task.result() if task.done() and not task.cancelled() else None

    async def _embedded(self, model_id: str, text: str) -> Sequence[float] | None:
        try:
            async with self._engines.lease(model_id) as client:
                spec = EmbedSpec(inputs=[text[:MAX_CHARS]], truncate=True)
                made: Vectors = await client.ask(spec)
        except EdgeAgentError as exc:
            self._cold_from_s = time.monotonic() + COOLDOWN_S
            logger.warning("scope_without_vector model=%s code=%s", model_id, exc.code)
            return None
        return array("f", made.data)

    async def close(self) -> None:
        """May be called twice."""
        for task in list(self._pending):
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)


def _state_of(path: Path | None) -> FileState | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_size, found.st_mtime_ns


def _read(path: Path, sha256: str) -> ScopeGate | None:
    """Any thread."""
    from edgeagent.routing.scope_gate import ScopeGate, read_scope

    try:
        file = read_scope(path)
    except SettingsError as exc:
        logger.warning("scope_gate_unusable %s", exc.message)
        return None
    gates = file.models.get(sha256)
    if gates is None:
        logger.warning("scope_gate_unusable %s is for other versions of the model", path)
        return None
    return ScopeGate(file, gates)
