"""Prompts on threads of their own: texts as the model alone writes them, whatever ends meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching.prompts_beside import CHUNK, IDLE_S
from edgeagent.engine.llama.batch import Row
from edgeagent.types.step_costs import MOST_BESIDE, TILE, StepCosts
from tests.conftest import n_examples
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import FakeRunner, reference

N_THREADS = 2


class SlowThread:
    """Computes a chunk of up to `n_batch` tokens within `n_polls` looks at it. Its context has `n_cells`."""

    def __init__(self, runner: FakeRunner, n_polls: int, n_cells: int, n_batch: int) -> None:
        self._runner = runner
        self._n_polls = n_polls
        self._n_cells = n_cells
        self._n_batch = n_batch
        self.n_left = 0
        self.row: Row | None = None
        self.done: list[Row] = []
        self.sizes: list[int] = []  # of the chunks, with what fills them up
        self.n_dropped = 0
        self.fails = False
        self.took_s = 0.1

    @property
    def is_busy(self) -> bool:
        return self.row is not None

    @property
    def has_ended(self) -> bool:
        self.n_left -= 1
        return self.n_left < 0

    @property
    def n_tokens(self) -> int:
        return self.sizes[-1]

    def holds(self, row: Row) -> bool:
        return bool(self.done) and self.done[-1].seq_id == row.seq_id

    def start(self, row: Row, n_least: int = 0) -> bool:
        assert self.row is None, "one chunk at a time"
        self.sizes.append(max(len(row.tokens), n_least))
        assert self.sizes[-1] <= self._n_batch
        if row.last_pos > self._n_cells:
            return False
        self.row, self.n_left = row, self._n_polls
        return True

    def fetch(self) -> np.ndarray[Any, Any] | None:
        row, self.row = self.row, None
        assert row is not None
        self.done.append(row)
        return None if self.fails else self._runner.run([row])

    def drop(self) -> None:
        assert self.row is not None
        self.row = None
        self.n_dropped += 1


class Beside(Harness):
    """A harness whose engine has two slow threads."""

    def __init__(
        self, n_cells: int = 4096, n_polls: int = 3, own_cells: int = 512, n_batch: int = 256
    ) -> None:
        self._slow = n_polls, own_cells, min(MOST_BESIDE, n_batch)
        super().__init__(n_cells, n_threads=N_THREADS, n_batch=n_batch)

    def make_runner(self, n_cells: int, *, can_trim: bool) -> FakeRunner:
        runner = FakeRunner(n_cells, can_trim=can_trim)
        self.threads = [SlowThread(runner, *self._slow) for _ in range(2)]
        runner.is_beside = True
        runner.prompt_threads = self.threads
        runner.prompt_ended = threading.Event()
        runner.prompt_ended.set()  # nobody waits
        return runner

    @property
    def rows(self) -> list[Row]:
        return [row for thread in self.threads for row in thread.done]


def prompt(seed: int, n: int) -> list[int]:
    return [(7 * i + 31 * seed) % 90 + 1 for i in range(n)]


def test_a_prompt_that_is_alone_is_computed_by_all_threads():
    harness = Beside()
    harness.submit(1, prompt(1, 100))
    harness.finish()
    assert harness.rows == []
    assert harness.tokens(1) == reference(prompt(1, 100), 8)


def test_what_several_clients_need_is_made_when_the_first_request_has_ended_for_a_moment():
    harness = Beside()
    for _ in range(3):
        harness.now += 1.0
        harness.engine.step()
    harness.submit(1, prompt(1, 5))
    harness.finish()
    harness.engine.step()
    assert harness.runner.n_begun_apart == 0
    harness.now += IDLE_S + 0.1
    harness.engine.step()
    assert harness.runner.n_begun_apart == 1


def test_memory_is_given_back_once_after_each_time_that_answers_were_computed():
    harness = Beside()
    for n in (1, 2):
        harness.submit(n, prompt(n, 5))
        harness.finish()
        harness.engine.step()
        assert harness.runner.n_rests == n - 1, "the next request may come at once"
        for _ in range(3):
            harness.now += IDLE_S + 0.1
            harness.engine.step()
        assert harness.runner.n_rests == n


def test_answers_go_on_while_a_prompt_is_computed():
    harness = Beside()
    harness.submit(1, prompt(1, 5), max_new=40, ignore_eos=True)
    harness.engine.step()
    assert harness.runner.n_begun_apart == 0  # nothing is made for one client
    harness.submit(2, prompt(2, 300))
    harness.engine.step()
    assert harness.runner.n_begun_apart > 0
    assert any(thread.is_busy for thread in harness.threads)
    n_before = len(harness.runner.steps)
    harness.engine.step()
    assert [[len(row.tokens) for row in step] for step in harness.runner.steps[n_before:]] == [[1]]
    harness.finish()
    assert [len(row.tokens) for row in harness.rows] == [CHUNK, 300 - CHUNK]
    assert harness.tokens(2) == reference(prompt(2, 300), 8)


@pytest.mark.parametrize(("n", "size"), [(40, 40), (61, TILE), (70, 70)])
def test_a_chunk_is_filled_up_to_a_tile_where_that_is_faster(n: int, size: int):
    """Here 61 tokens and fewer take 2 ms each and a tile 100 in all; before it is measured nobody knows."""
    harness = Beside()
    for i in range(2):
        harness.submit(i, prompt(i, n))
    harness.engine.step()
    assert [thread.sizes for thread in harness.threads] == [[n], [n]]
    harness.finish()
    step_s = {k: 0.002 * k for k in (1, 8, 16, 32, 48, TILE - 1)} | {TILE: 0.1, 128: 0.2}
    harness.engine.take_costs(StepCosts(step_s=step_s, alone_s=step_s, n_threads=2, n_heads=1))
    for i in range(2, 4):
        harness.submit(i, prompt(i, n))
    harness.engine.step()
    assert [thread.sizes[-1] for thread in harness.threads] == [size, size]
    harness.finish()
    assert harness.tokens(3) == reference(prompt(3, n), 8)


@pytest.mark.parametrize(("n_batch", "sizes"), [(32, {32}), (70, {64, 36}), (190, {100})])
def test_no_chunk_is_larger_than_a_step_may_be(n_batch: int, sizes: set[int]):
    """And none is filled up to a tile that does not fit, although the costs say so."""
    harness = Beside(n_batch=n_batch)
    step_s = {k: 0.002 * k for k in (1, 8, 16, 32, 48, TILE - 1)} | {TILE: 0.01, 128: 0.2}
    harness.engine.take_costs(StepCosts(step_s=step_s, alone_s=step_s, n_threads=2, n_heads=1))
    for i in range(2):
        harness.submit(i, prompt(i, 100))
    harness.finish()
    assert [harness.tokens(i) for i in range(2)] == [reference(prompt(i, 100), 8) for i in range(2)]
    assert max(n for thread in harness.threads for n in thread.sizes) == max(sizes)
    assert {len(row.tokens) for row in harness.rows} <= sizes


def test_prompts_that_arrive_together_are_computed_at_once():
    harness = Beside()
    for i in range(2):
        harness.submit(i, prompt(i, 50))
    harness.engine.step()
    assert all(thread.is_busy for thread in harness.threads)
    harness.finish()
    assert [harness.tokens(i) for i in range(2)] == [reference(prompt(i, 50), 8) for i in range(2)]


@pytest.mark.parametrize("n, waits", [(50, True), (300, False)])
def test_answers_wait_for_prompts_that_complete_and_not_for_longer_ones(n: int, waits: bool):
    harness = Beside(n_polls=30)
    harness.submit(1, prompt(1, 5), max_new=40, ignore_eos=True)
    harness.engine.step()
    for i in (2, 3):
        harness.submit(i, prompt(i, n))
    harness.engine.step()
    assert all(thread.is_busy for thread in harness.threads)
    n_before = len(harness.runner.steps)
    harness.engine.step()
    assert (len(harness.runner.steps) == n_before) is waits
    harness.finish()
    assert harness.tokens(2) == reference(prompt(2, n), 8)


@pytest.mark.parametrize("waited_s, waits", [(0.0, True), (0.5, True), (1.6, False)])
def test_answers_that_have_just_begun_wait_longer_for_prompts_that_came_with_them(waited_s, waits):
    harness = Beside(n_polls=30)
    for i in range(4):
        harness.submit(i, prompt(i, 50))
    while not any(seq.is_answering for seq in harness.engine._running):
        harness.engine.step()
    harness.now += waited_s
    n_before = len(harness.runner.steps)
    harness.engine.step()
    assert (len(harness.runner.steps) == n_before) is waits
    harness.finish()
    assert [harness.tokens(i) for i in range(4)] == [reference(prompt(i, 50), 8) for i in range(4)]


@pytest.mark.parametrize("are_measured", [True, False])
def test_the_last_prompt_that_answers_wait_for_is_computed_by_all_threads(are_measured: bool):
    """Two end together; of two that end one shortly after the other, the later one is waited for."""
    harness = Beside(n_polls=3)
    step_s = {k: 0.002 * k for k in (1, 8, 16, TILE - 1, TILE, 128)}
    if are_measured:
        harness.engine.take_costs(StepCosts(step_s=step_s, alone_s=step_s, n_threads=2, n_heads=1))
    for i in range(3):
        harness.submit(i, prompt(i, 50))
    harness.engine.step()
    assert all(thread.is_busy for thread in harness.threads)
    harness.now += 0.095
    harness.threads[1].n_left += 3
    harness.finish()
    assert len(harness.rows) == 3 - are_measured
    sizes = [[len(row.tokens) for row in step] for step in harness.runner.steps]
    assert sizes[:4] == [[50], [50], [50], [1, 1, 1]], "nothing goes on before"
    assert [harness.tokens(i) for i in range(3)] == [reference(prompt(i, 50), 8) for i in range(3)]


@pytest.mark.parametrize("why", ["too long", "fails"])
def test_what_a_thread_cannot_compute_is_computed_in_turn(why: str):
    harness = Beside(own_cells=40 if why == "too long" else 512)
    for thread in harness.threads:
        thread.fails = why == "fails"
    for i in range(3):
        harness.submit(i, prompt(i, 60))
    harness.finish()
    assert [harness.tokens(i) for i in range(3)] == [reference(prompt(i, 60), 8) for i in range(3)]


def test_one_that_is_cancelled_gives_its_thread_back():
    harness = Beside(n_polls=1000)
    harness.submit(0, prompt(0, 5), max_new=30, ignore_eos=True)
    for _ in range(3):
        harness.engine.step()
    request = harness.submit(1, prompt(1, 60))
    harness.engine.step()
    request.is_cancelled = True
    harness.finish()
    assert harness.ends[1, 0].finish == "cancelled"
    assert sum(thread.n_dropped for thread in harness.threads) == 1
    assert not any(thread.is_busy for thread in harness.threads)


@given(
    st.lists(
        st.tuples(st.integers(1, 2 * MOST_BESIDE), st.integers(0, 12)), min_size=1, max_size=7
    ),
    st.integers(0, 6),
    st.sampled_from([600, 900, 4096]),
    st.data(),
)
@settings(max_examples=n_examples(30), deadline=None)
def test_texts_do_not_depend_on_threads(requests, n_polls: int, n_cells: int, data) -> None:
    """Requests come some steps apart, some are cancelled, and in a small cache some are preempted."""
    harness = Beside(n_cells, n_polls)
    cancelled = set()
    for number, (n, n_steps) in enumerate(requests):
        request = harness.submit(number, prompt(number % 3, n), scope=str(number % 2))
        for _ in range(n_steps):
            harness.engine.step()
        if data.draw(st.integers(0, 5)) == 0:
            request.is_cancelled = True
            cancelled.add(number)
    harness.finish()
    for number, (n, _) in enumerate(requests):
        wanted = reference(prompt(number % 3, n), 8)
        found = harness.tokens(number)
        assert found == wanted[: len(found)] if number in cancelled else found == wanted
    assert not any(thread.is_busy for thread in harness.threads)
