"""Prompts that are computed on threads of their own, beside the steps of the engine thread."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeagent.engine.batching.chunk_choice import load_of
from edgeagent.engine.batching.scheduler import MIN_CHUNK, Lane
from edgeagent.engine.batching.scheduler_views import row_of
from edgeagent.engine.batching.sequence import Sequence as Answer
from edgeagent.engine.batching.step_cost import StepLoad
from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.llama.batch import Row
from edgeagent.engine.llama.prompt_thread import PromptThread
from edgeagent.types.step_costs import MOST_BESIDE, TILE

# Tokens of a chunk: whole tiles, as many as take less than a second on slow cores.
CHUNK = 2 * TILE
# How long answers wait at most for prompts that complete: readers notice 100 ms.
PAUSE_S = 0.05
# And answers that have just begun, for prompts that came with them. Readers of their first tokens wait no
# longer for the next one than those of the last prompt for their first; steps of one or two answers beside
# prompts would take a third of the cores from these. 8 chats at once have their last first token after 0.91 s
# and not 1.03, gaps p95 46 and not 85 ms; with 1.5 s in place of 0.6 dialogues of 8 clients have gaps p95 of
# 46 and not 157 ms, and TTFT p95 1.88 and not 2.03 s (simulated, SmolLM2-135M Q4_1, 2 cores of a Zen 4).
BEGINNING_PAUSE_S = 1.5
# A chunk below a tile is filled up to one where that takes this share of the time: 61 tokens behind 250 took
# 213 ms on a thread, and 64 took 147 (SmolLM2-135M, mixed types, 2 cores of a Zen 4).
FILLED = 0.97
# The contexts for more than one sequence are made when the engine has been idle so long after the first one,
# and give their memory back when it has been idle so long again.
IDLE_S = 0.25
# The share of its time after which a chunk is nearly done.
NEARLY = 0.85
NOTHING: array[int] = array("i")

Predict = Callable[[StepLoad], float | None]


@dataclass(eq=False)
class Chunk:
    """A chunk that a thread computes."""

    seq: Answer
    row: Row
    thread: PromptThread
    load: StepLoad
    started_s: float


class PromptsBeside:
    """Which prompts are computed on which thread. Engine thread only.

    They are used while answers are generated, and where more than one prompt waits: a prompt that is alone,
    or the last one that answers wait for, is computed sooner by all cores together.
    """

    def __init__(
        self, runner: Runner, predict: Predict, clock: Callable[[], float], n_batch: int
    ) -> None:
        self._runner = runner
        self._ran_s = float("inf")
        self._is_rested = True
        self._threads = runner.prompt_threads  # none before that
        self._ended = runner.prompt_ended
        self._predict = predict
        self._clock = clock
        self._n_most = min(MOST_BESIDE, n_batch)  # tokens of a chunk
        self._chunks: dict[int, Chunk] = {}  # by admission
        self._refused: set[int] = set()  # admissions whose chunks did not fit

    @property
    def n_busy(self) -> int:
        return len(self._chunks)

    def is_worth_waiting(self, running: Iterable[Answer], decoded_s: float) -> bool:
        """Whether answers wait, which went on at `decoded_s`, for chunks that are the last of their prompts.
        Those that have begun do so until no prompt is left, others only while each thread has one."""
        chunks = self._chunks.values()
        if not chunks or not all(chunk.row.n_outputs for chunk in chunks):
            return False
        begun_s = _begun_s(running)
        if begun_s is not None:
            return self._clock() - begun_s < BEGINNING_PAUSE_S
        return len(chunks) == len(self._threads) and self._clock() - decoded_s < PAUSE_S

    @property
    def n_reserved(self) -> int:
        """Cells that the chunks will need."""
        return sum(len(chunk.row.tokens) for chunk in self._chunks.values())

    def start(self, running: Collection[Answer], lanes: list[Lane], n_threads: int) -> list[Lane]:
        """Begin chunks for the prompts among `lanes` on threads that are idle, where `n_threads` compute in
        all. Returns the lanes that are left for the step."""
        now = self._clock()
        if running:
            self._ran_s, self._is_rested = now, False
        has_paused = now - self._ran_s > IDLE_S
        if len(running) > 1 or has_paused:
            self._runner.begin_apart()
        if has_paused and not self._is_rested:
            self._runner.rest()
            self._is_rested = True
        if not self._threads or n_threads < 2:
            return [lane for lane in lanes if lane.key not in self._chunks]
        keys = {lane.key for lane in lanes if not lane.is_decoding and lane.adapter is None}
        able = [seq for seq in running if seq.admission in keys and self._is_able(seq)]
        left = [seq for seq in able if seq.admission not in self._chunks]
        if len(left) == 1 and self._is_waited_for(left[0], running):
            if not self._chunks:
                return [lane for lane in lanes if not lane.is_answering]
            if self._are_nearly_done:
                busy = {left[0].admission, *self._chunks}
                return [lane for lane in lanes if lane.key not in busy]
        if len(able) + len(self._chunks) < 2 and not any(lane.is_answering for lane in lanes):
            return [lane for lane in lanes if lane.key not in self._chunks]
        begun: list[Chunk] = []
        for seq in left:
            row = row_of(seq, self._size(seq.n_pending), NOTHING)
            idle = [thread for thread in self._threads if not thread.is_busy]
            if not idle:
                break
            thread = next((one for one in idle if one.holds(row)), idle[0])
            load = self._filled(load_of(0, [row])._replace(n_threads=1))
            if thread.start(row, load.n_prefill):
                load = load._replace(n_prefill=thread.n_tokens)
                begun.append(Chunk(seq, row, thread, load, self._clock()))
                self._chunks[seq.admission] = begun[-1]
            else:
                self._refused.add(seq.admission)
        if begun:
            go_on = any(lane.is_answering for lane in lanes) and _begun_s(running) is None
            n_others = len(self._chunks) - 1 + go_on
            for chunk in begun:
                chunk.load = chunk.load._replace(n_beside=n_others)
        waiting = {seq.admission for seq in able} - self._refused | self._chunks.keys()
        return [lane for lane in lanes if lane.key not in waiting]

    def _is_waited_for(self, seq: Answer, running: Collection[Answer]) -> bool:
        """Whether a prompt is the last one that answers wait for, which have begun: it is alone, then."""
        begun_s = _begun_s(running)
        is_due = begun_s is not None and self._clock() - begun_s < BEGINNING_PAUSE_S
        return is_due and seq.n_pending <= CHUNK

    @property
    def _are_nearly_done(self) -> bool:
        """Whether the chunks end so soon that waiting for them takes less than a core gains."""
        now = self._clock()
        expected = [self._predict(chunk.load) for chunk in self._chunks.values()]
        return all(
            seconds is not None and now - chunk.started_s > NEARLY * seconds
            for seconds, chunk in zip(expected, self._chunks.values(), strict=True)
        )

    def _filled(self, load: StepLoad) -> StepLoad:
        """The load of a chunk, with as many tokens as it costs the least with."""
        if load.n_prefill >= TILE or self._n_most < TILE:
            return load
        filled = load._replace(n_prefill=TILE)
        plain_s, filled_s = self._predict(load), self._predict(filled)
        is_cheaper = plain_s is not None and filled_s is not None and filled_s < FILLED * plain_s
        return filled if is_cheaper else load

    def _size(self, n_pending: int) -> int:
        """Tokens of the next chunk."""
        if n_pending <= self._n_most:
            return n_pending
        return min(CHUNK, self._n_most // TILE * TILE or self._n_most)

    def _is_able(self, seq: Answer) -> bool:
        least = TILE if seq.is_answering else MIN_CHUNK
        is_small = seq.n_pending < least or seq.is_scored
        return not is_small and seq.admission not in self._refused

    def ended(self) -> list[Chunk]:
        """The chunks that have ended: each is to be fetched."""
        self._ended.clear()
        return [chunk for chunk in self._chunks.values() if chunk.thread.has_ended]

    def fetch(self, chunk: Chunk) -> np.ndarray[Any, Any] | None:
        """The logits of a chunk, whose cells are in the main cache then. None: it is to be computed again."""
        if self._chunks.pop(chunk.seq.admission, None) is None:
            return None  # it was dropped
        logits = chunk.thread.fetch()
        if logits is None:
            self._refused.add(chunk.seq.admission)
        return logits

    def drop(self, seq: Answer) -> None:
        """A sequence leaves the engine, or has to give up its cells."""
        self._refused.discard(seq.admission)
        chunk = self._chunks.pop(seq.admission, None)
        if chunk is not None:
            chunk.thread.drop()

    def wait(self, limit_s: float) -> None:
        """Until a chunk ends."""
        self._ended.wait(limit_s)


def _begun_s(running: Iterable[Answer]) -> float | None:
    """When the first of the answers began, if all of them have just begun."""
    answers = [seq for seq in running if seq.is_answering]
    begun = [seq.first_token_s for seq in answers if seq.first_token_s is not None]
    return min(begun) if begun and all(seq.n_generated <= 1 for seq in answers) else None
