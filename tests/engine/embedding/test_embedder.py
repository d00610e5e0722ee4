"""Fairness, bounds and endings of the embedder, with a model whose vectors say which text they are of."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.step_runner import StepAborted
from edgeagent.engine.embedding.embedder import Embedder, EmbeddingRequest, plan_texts, unit
from edgeagent.errors import EngineFailed, QueueFull, QueueTimeout
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.unary_requests import EmbedSpec, Vectors
from edgeagent.types.worker_config import ComputeLimits


class FakeEncoder:
    """A text of n tokens that begins with t is (t, n, 1)."""

    n_texts = 8
    n_parallel = 1

    def __init__(self) -> None:
        self.steps: list[list[int]] = []  # first tokens, step by step
        self.lengths: list[list[int]] = []
        self.error: Exception | None = None

    def encode(self, texts: Sequence[array[int]]) -> np.ndarray[Any, Any]:
        self.steps.append([text[0] for text in texts])
        self.lengths.append([len(text) for text in texts])
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return np.array([[text[0], len(text), 1] for text in texts], np.float32)

    def wait_briefly(self, is_contended: bool) -> None:
        pass

    def set_threads(self, n_threads: int) -> None:
        assert n_threads >= 1

    def arm(self) -> None:
        pass


class House:
    """An embedder and what came out of it."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.results: dict[int, Vectors] = {}
        self.refused: dict[int, Exception] = {}
        self.forgotten: list[int] = []
        self.encoder = FakeEncoder()
        self.embedder = Embedder(
            EngineConfig(model_id="fake", path="", **options),
            self.encoder,
            emit=self.results.__setitem__,
            refuse=self.refused.__setitem__,
            forget=self.forgotten.append,
            clock=lambda: self.now,
        )

    def ask(
        self, request_id: int, *lengths: int, dimensions: int | None = None
    ) -> EmbeddingRequest:
        request = EmbeddingRequest(
            request_id, EmbedSpec(inputs=[], dimensions=dimensions), self.now
        )
        request.texts.extend(array("i", [request_id] * n) for n in lengths)
        request.n_prompt = sum(lengths)
        self.embedder.submit(request)
        return request

    def run(self) -> int:
        n = 0
        while self.embedder.step():
            n += 1
        return n


def rows(vectors: Vectors) -> np.ndarray[Any, Any]:
    return np.frombuffer(vectors.data, "<f4").reshape(-1, vectors.n_dimensions)


@pytest.mark.parametrize(
    ("lengths", "n_tokens", "n_texts", "expected"),
    [
        ([], 100, 8, []),
        ([[10, 10, 10]], 100, 8, [3]),
        ([[10, 10, 10]], 25, 8, [2]),
        ([[10] * 50, [10]], 60, 8, [5, 1]),  # the short list is not behind the long one
        ([[10] * 50, [10], [10]], 60, 3, [1, 1, 1]),
        ([[500], [10]], 100, 8, [1, 0]),  # too long for a step, and alone in one
        ([[60, 20], [60], [30]], 100, 8, [1, 0, 1]),
        ([[10] * 50, [10]], 60, 1, [1, 0]),
    ],
)
def test_a_step_takes_one_text_of_each_in_turn(lengths, n_tokens, n_texts, expected):
    assert plan_texts(lengths, n_tokens, n_texts) == expected


@pytest.mark.parametrize(
    ("lengths", "n_parallel", "expected"),
    [
        ([[200, 190, 150, 100]], 2, [2]),  # one for each thread, however long
        ([[90, 60, 40, 10, 80]], 2, [4]),
        ([[90], [90], [90]], 2, [1, 1, 0]),
        ([[200, 190], [10]], 4, [2, 1]),
    ],
)
def test_each_thread_has_texts_of_its_own(lengths, n_parallel, expected):
    assert plan_texts(lengths, 100, 8, n_parallel) == expected


@given(
    st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=20), min_size=1, max_size=10),
    st.integers(32, 512),
    st.integers(1, 64),
)
def test_a_plan_is_within_its_bounds_and_takes_the_first_text(lengths, n_tokens, n_texts):
    counts = plan_texts(lengths, n_tokens, n_texts)
    taken = [n for waiting, count in zip(lengths, counts, strict=True) for n in waiting[:count]]
    assert counts[0] >= 1
    assert 1 <= len(taken) <= n_texts
    assert sum(taken) <= n_tokens or len(taken) == 1


def test_every_text_has_its_own_vector_of_length_one_in_the_order_given():
    house = House()
    house.ask(3, 5, 70, 2, 300, 9)
    house.ask(4, 8)
    house.run()
    found = rows(house.results[3])
    for row, n in zip(found, (5, 70, 2, 300, 9), strict=True):
        np.testing.assert_allclose(row, np.array([3, n, 1]) / np.linalg.norm([3, n, 1]), rtol=1e-6)
    assert house.results[3].n_prompt == 386
    assert sorted(house.forgotten) == [3, 4] and house.embedder.is_idle


def test_texts_side_by_side_are_of_about_a_length_and_answered_in_the_order_given():
    house = House(n_threads=2)
    house.encoder.n_parallel = 2
    lengths = (5, 70, 220, 300, 9, 210, 290)
    house.ask(3, *lengths)
    house.run()
    assert house.encoder.lengths == [[300, 290], [220, 210], [70, 9, 5]]
    for row, n in zip(rows(house.results[3]), lengths, strict=True):
        np.testing.assert_allclose(row, np.array([3, n, 1]) / np.linalg.norm([3, n, 1]), rtol=1e-6)
    assert house.embedder.health(1).n_threads == 2
    house.embedder.limit(ComputeLimits(n_threads=2, n_cores_taken=1))
    house.ask(4, 200, 100)
    house.embedder.step()
    assert house.encoder.lengths[-1] == [200] and house.embedder.health(1).n_threads == 1


def test_one_text_does_not_wait_for_a_list_of_thousands():
    house = House()
    house.ask(1, *[50] * 2000)
    house.embedder.step()
    house.ask(2, 50)
    house.embedder.step()
    assert 2 in house.results and 1 not in house.results
    assert house.run() > 100
    assert len(rows(house.results[1])) == 2000


def test_long_texts_are_computed_one_by_one_however_fast_the_model_is():
    house = House(prefill_tok_s=1e6, n_batch=2048)
    house.ask(1, *[200] * 5)
    house.run()
    assert house.encoder.steps == [[1]] * 5
    house.ask(2, *[30] * 8)  # together no longer than one long text
    house.run()
    assert house.encoder.steps[5:] == [[2] * 8]


def test_who_did_not_fit_comes_first_in_the_next_step():
    house = House()
    house.ask(1, *[60] * 30)
    house.ask(2, 300)
    house.ask(3, *[4] * 3)
    house.run()
    firsts = [step[0] for step in house.encoder.steps]
    assert firsts[:2] == [1, 2]


def test_dimensions_cut_the_vectors_and_scale_them_to_length_one_again():
    house = House()
    house.ask(1, 4, dimensions=2)
    house.run()
    np.testing.assert_allclose(rows(house.results[1]), [[1 / 17**0.5, 4 / 17**0.5]], rtol=1e-6)


def test_a_full_queue_refuses_and_says_when_to_come_again():
    house = House(queue_limit=2)
    for request_id in (1, 2, 3):
        house.ask(request_id, 5)
    assert isinstance(house.refused[3], QueueFull) and house.refused[3].retry_after_s >= 1
    house.run()
    assert set(house.results) == {1, 2}


def test_who_waited_too_long_is_told_so():
    house = House(queue_timeout_s=10.0)
    house.ask(1, 5)
    house.now = 11.0
    assert not house.embedder.step()
    assert isinstance(house.refused[1], QueueTimeout)


def test_a_cancelled_request_leaves_without_a_word():
    house = House()
    gone = house.ask(1, *[50] * 100)
    house.embedder.step()
    gone.is_cancelled = True
    house.ask(2, 5)
    house.run()
    assert set(house.results) == {2} and not house.refused
    assert sorted(house.forgotten) == [1, 2]


def test_an_aborted_step_is_done_again_for_those_who_stay():
    house = House()
    gone, stays = house.ask(1, 50), house.ask(2, 50)
    house.encoder.error = StepAborted()
    assert house.embedder.step() and len(stays.texts) == 1
    gone.is_cancelled = True
    house.run()
    assert set(house.results) == {2}


def test_a_failed_step_costs_its_own_requests():
    house = House()
    house.ask(1, 50)
    house.encoder.error = EngineFailed("broken")
    house.embedder.step()
    assert isinstance(house.refused[1], EngineFailed)
    house.ask(2, 50)
    house.run()
    assert set(house.results) == {2}


def test_numbers_that_are_none_are_an_error_and_zeros_are_not():
    assert unit(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]
    with pytest.raises(EngineFailed, match="none"):
        unit(np.array([[np.nan, 1]], np.float32))


def test_health_counts_who_runs_and_who_waits():
    house = House()
    house.ask(1, *[60] * 30)
    house.embedder.step()
    house.ask(2, 5)
    health = house.embedder.health(123)
    assert (health.n_running, health.n_waiting, health.n_steps) == (1, 1, 1)
    assert health.rss_bytes == 123
