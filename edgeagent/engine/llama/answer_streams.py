"""Computes answers in streams of their own, where each meets its own cells only.

In the unified cache each token walks the cells of all sequences: with eight answers of 700 tokens each a
tenth to a fifth of a step goes to masked cells (SmolLM2-135M Q4_1, 2 cores of a Zen 4). llama.cpp's separate
streams end that, but each of them has a fixed number of cells, and a prefix in one cannot be shared with
another. So the unified cache stays where prefixes are shared, parked and evicted. An answer that would walk
many cells of others gets a copy of its cells here; the cells of its new tokens lie here alone until somebody
needs them there (`settle`).
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from edgeagent.engine.llama import kv_cells
from edgeagent.engine.llama.batch import Batch, Row, run_batch
from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EngineFailed
from edgeagent.types.engine_config import EngineConfig

logger = logging.getLogger(__name__)

# Longer rows are parts of prompts.
MOST_TOKENS = 8
# A token walks 1 us over each cell of others; the copy of a cell, and its way back, costs 10. Answers have 30
# tokens and more: it pays where the cells of others are as many as its own, and these.
LEAST_MASKED = 192
# Cells that are free in the stream of an answer when it begins there.
ROOM = 32
# llama.cpp computes streams together whose numbers follow each other. Gaps are closed after so many steps.
PATIENCE = 8
# What is before the cells in the state of a sequence: a magic number, the sequence, the number of streams.
# The number of cells of each stream follows, before its cells.
WORD = 4
STREAMS_AT = 2


@dataclass
class Stream:
    """An answer here: its number, the tokens that the unified cache has of it, and those that are here."""

    id: int
    n_settled: int
    n: int


class AnswerStreams:
    """Streams of `config.n_answer_cells` cells for running answers. Engine thread only."""

    def __init__(self, llama: Llama, config: EngineConfig) -> None:
        self._llama = llama
        self._n_streams = config.n_seq
        self._n_cells = config.n_answer_cells
        self.n_batch = llama.max_outputs
        self.context = llama.new_context(
            config,
            "answer_cells",  # no flag of its own: aborted with the unified context
            n_ctx=config.n_seq * config.n_answer_cells,
            n_batch=self.n_batch,
            n_ubatch=self.n_batch,
            n_seq_max=config.n_seq,
            n_outputs_max=self.n_batch,
            kv_unified=False,
        )
        self._memory = lib.llama_get_memory(self.context)
        self._batch = Batch(self.n_batch)
        self._logits = np.empty((self.n_batch, llama.n_vocab), np.float32)
        self._n_threads = config.n_threads
        self._held: dict[int, Stream] = {}  # by id in the unified cache
        self._n_gappy = 0  # steps with gaps so far
        self._store = kv_cells.PageStore()
        self._is_able = self._has_known_states()
        if not self._is_able:
            logger.warning("answer_streams_off reason=unknown_state_format")

    def take(self, rows: Sequence[Row], n_used: int) -> set[int]:
        """The sequences whose rows are to be computed here, now that their cells are. All sequences of the
        unified cache use `n_used` cells."""
        taken: set[int] = set()
        n_tokens = 0
        for row in rows:
            if len(row.tokens) > MOST_TOKENS or n_tokens + len(row.tokens) > self.n_batch:
                continue
            n_tokens += len(row.tokens)
            if row.seq_id in self._held:
                if row.last_pos <= self._n_cells:
                    taken.add(row.seq_id)
            elif len(rows) > 1 and self._is_worth(row, n_used) and self._enter(row):
                taken.add(row.seq_id)
        return taken

    def run(self, rows: list[Row]) -> np.ndarray[Any, Any]:
        """Compute rows that were taken. Returns and raises as `Llama.decode`; logits in the order of rows."""
        self._close_gaps([self._held[row.seq_id] for row in rows])
        order = sorted(range(len(rows)), key=lambda i: self._held[rows[i].seq_id].id)
        outputs: list[list[int]] = [[] for _ in rows]  # where those of each row lie
        self._batch.clear()
        for i in order:
            row = rows[i]
            stream = self._held[row.seq_id]
            stream.n = row.last_pos
            first = self._batch.n_outputs
            self._batch.add(stream.id, row.tokens, row.first_pos, n_outputs=row.n_outputs)
            outputs[i] = list(range(first, self._batch.n_outputs))
        logits = run_batch(self.context, self._batch, self._llama.n_vocab)
        places = list(chain.from_iterable(outputs))
        if places == sorted(places):
            return logits
        return np.take(logits, places, axis=0, out=self._logits[: len(places)])

    @property
    def is_empty(self) -> bool:
        """Whether no cell is in use."""
        return not self._held

    def n_settled(self, seq_id: int, n: int) -> int:
        """How many of the first n tokens of a sequence the unified cache has."""
        stream = self._held.get(seq_id)
        return n if stream is None else min(n, stream.n_settled)

    def settle(self, seq_id: int) -> None:
        """Have all cells of a sequence in the unified cache, and none here. Raises: EngineFailed."""
        stream = self._held.get(seq_id)
        if stream is not None and stream.n > stream.n_settled:
            lib.llama_memory_seq_rm(self._memory, stream.id, 0, stream.n_settled)
            data = _as_unified(kv_cells.read(self.context, stream.id, self._room), stream.id)
            if not kv_cells.place(self._llama, seq_id, stream.n_settled, stream.n, data):
                raise EngineFailed("llama.cpp found no room for the cells of an answer.")
        self._drop(seq_id)

    def trim(self, seq_id: int, n: int) -> None:
        """A sequence was cut back to its first n tokens."""
        stream = self._held.get(seq_id)
        if stream is None:
            return
        if n == 0:
            self._drop(seq_id)
            return
        lib.llama_memory_seq_rm(self._memory, stream.id, n, -1)
        stream.n = min(stream.n, n)
        stream.n_settled = min(stream.n_settled, n)

    def set_threads(self, n_threads: int) -> None:
        if n_threads == self._n_threads:
            return
        self._n_threads = n_threads
        lib.llama_set_n_threads(self.context, n_threads, n_threads)

    def _is_worth(self, row: Row, n_used: int) -> bool:
        """Whether the cells of others cost more than a copy of its own."""
        n_own = row.first_pos
        is_able = self._is_able and 0 < n_own <= self._n_cells - MOST_TOKENS - ROOM
        return is_able and n_used - n_own >= max(LEAST_MASKED, n_own)

    def _enter(self, row: Row) -> bool:
        """Copy the cells before a row to a free stream."""
        free = self._first_free()
        if free is None:
            return False
        n = row.first_pos
        data = kv_cells.lift(self._llama, row.seq_id, 0, n, self._room)
        if not self._put(free, self._as_streams(data)):
            return False
        self._held[row.seq_id] = Stream(free, n, n)
        return True

    def _first_free(self) -> int | None:
        used = {stream.id for stream in self._held.values()}
        return next((number for number in range(self._n_streams) if number not in used), None)

    def _close_gaps(self, streams: list[Stream]) -> None:
        """Move the last stream into the first gap, if there has been one for some steps."""
        numbers = sorted(stream.id for stream in streams)
        if numbers[-1] == len(numbers) - 1:
            self._n_gappy = 0
            return
        self._n_gappy += 1
        gap = self._first_free()
        last = max(self._held.values(), key=lambda stream: stream.id)
        if self._n_gappy <= PATIENCE or gap is None or gap > last.id:
            return  # without a gap, answers of this step have others between them that wait
        self._n_gappy = 0
        if self._put(gap, kv_cells.read(self.context, last.id, self._room)):
            lib.llama_memory_seq_rm(self._memory, last.id, -1, -1)
            last.id = gap

    def _put(self, number: int, data: memoryview) -> bool:
        address = kv_cells.address_of(data)
        n = int(lib.llama_state_seq_set_data(self.context, address, len(data), number))
        return n > 0

    def _drop(self, seq_id: int) -> None:
        stream = self._held.pop(seq_id, None)
        if stream is not None:
            lib.llama_memory_seq_rm(self._memory, stream.id, -1, -1)

    def _as_streams(self, data: memoryview) -> memoryview:
        """A state of the unified cache as one of this context. It lies in the store, with room behind it."""
        n_more = WORD * (self._n_streams - 1)
        _words(data)[STREAMS_AT] = self._n_streams
        size = len(data) + n_more
        store = memoryview(self._store.room(size))
        store[len(data) : size] = bytes(n_more)  # no cells of further streams
        return store[:size]

    def _room(self, n_bytes: int) -> mmap.mmap:
        """With a word more for each further stream."""
        return self._store.room(n_bytes + WORD * self._n_streams)

    def _has_known_states(self) -> bool:
        """Whether llama.cpp writes states as this file reads them, by those of sequences without cells."""
        own: list[int] = _words(kv_cells.read(self.context, 0)).tolist()
        main: list[int] = _words(kv_cells.read(self._llama.context, self._llama.spare_id)).tolist()
        is_known = main[STREAMS_AT:] == [1, 0]
        return is_known and own == [main[0], 0, self._n_streams] + [0] * self._n_streams


def _words(data: memoryview) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The bytes of a state as words, as far as they are whole."""
    return np.frombuffer(data, np.uint32, len(data) // WORD)


def _as_unified(data: memoryview, number: int) -> memoryview:
    """A state of stream `number` as one of the unified cache, in the same pages."""
    words = _words(data)
    magic, seq_id = words[:STREAMS_AT].tolist()
    words[number : number + 3] = magic, seq_id, 1
    return data[WORD * number :]
