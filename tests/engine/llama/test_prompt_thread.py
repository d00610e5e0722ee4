"""Prompts on threads of their own: the same logits, while the engine thread computes answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from edgeagent.engine.batching.step_runner import LlamaRunner, Row
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.prompt_thread import NICER, PromptThread
from edgeagent.types.engine_config import EngineConfig
from tests.engine.llama.rows import CLOSE, row
from tests.engine.llama.test_prompt_context import DEPTH

CONFIG = EngineConfig(model_id="s", path="", n_ctx=2048, n_seq=4, n_threads=2, prompt_cells=512)


@pytest.fixture(scope="module")
def runner(stories) -> Iterator[LlamaRunner]:
    config = msgspec.structs.replace(CONFIG, path=str(stories))
    llama = Llama(config)
    yield LlamaRunner(llama, config)
    llama.close()


@pytest.fixture
def threads(runner: LlamaRunner) -> Iterator[list[PromptThread]]:
    """Two threads; sequences 0 and 1 have DEPTH tokens in the main cache."""
    for seq_id in range(2):
        runner.run([row(seq_id, DEPTH, 0)])
    yield runner.prompt_threads
    for seq_id in range(4):
        runner.trim(seq_id, 0)


def alone(runner: LlamaRunner, one: Row) -> np.ndarray:
    """The logits of the row in the main cache, which is as before afterwards."""
    runner.trim(one.seq_id, one.first_pos)
    logits = np.array(runner.run([one]))
    runner.trim(one.seq_id, one.first_pos)
    return logits


def fetched(thread: PromptThread) -> np.ndarray:
    logits = thread.fetch()
    assert logits is not None
    return np.array(logits)


def test_two_prompts_beside_answers_have_the_logits_that_they_have_alone(
    runner: LlamaRunner, threads: list[PromptThread]
) -> None:
    prompts = [row(2, 100, 0), row(3, 70, 0)]
    wanted = [alone(runner, one) for one in prompts]
    assert all(thread.start(one) for thread, one in zip(threads, prompts, strict=True))
    answers = np.array(runner.run([row(0, 1, DEPTH), row(1, 1, DEPTH)]))
    found = [fetched(thread) for thread in threads]
    for one, logits in zip(wanted, found, strict=True):
        np.testing.assert_allclose(logits, one, atol=CLOSE)
    np.testing.assert_allclose(answers[1:], alone(runner, row(1, 1, DEPTH)), atol=CLOSE)
    after = np.array(runner.run([row(2, 1, 100)]))  # sees the cells that were moved
    runner.trim(2, 0)
    runner.run([row(2, 100, 0)])
    np.testing.assert_allclose(after, runner.run([row(2, 1, 100)]), atol=CLOSE)


def test_answers_go_first_where_there_are_fewer_cores_than_threads(
    runner: LlamaRunner, threads: list[PromptThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, priorities = os.getpriority(os.PRIO_PROCESS, 0), []
    for thread in threads:
        run = thread.context.run

        def noted(run: Callable[[], None] = run) -> None:
            priorities.append(os.getpriority(os.PRIO_PROCESS, 0))
            run()

        monkeypatch.setattr(thread.context, "run", noted)
    assert all(thread.start(row(2 + n, 8, 0)) for n, thread in enumerate(threads))
    assert all(fetched(thread).any() for thread in threads)
    assert priorities == [min(19, before + NICER)] * 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_chunk_continues_the_one_before_on_either_thread(
    runner: LlamaRunner, threads: list[PromptThread]
) -> None:
    for thread, one in zip(threads, (row(2, 64, 0, 0), row(2, 64, 64, 0)), strict=True):
        assert thread.start(one) and thread.fetch() is not None
    assert threads[1].holds(row(2, 10, 128)) and not threads[0].holds(row(2, 10, 128))
    assert threads[1].start(row(2, 40, 128))
    found = fetched(threads[1])
    runner.trim(2, 0)
    runner.run([row(2, 128, 0)])
    np.testing.assert_allclose(found, runner.run([row(2, 40, 128)]), atol=CLOSE)


def test_a_chunk_that_is_dropped_leaves_nothing(
    runner: LlamaRunner, threads: list[PromptThread]
) -> None:
    """And a sequence that is cut while another one is computed on the thread that has its cells."""
    thread = threads[0]
    assert thread.start(row(3, 64, 0, 0)) and thread.fetch() is not None
    assert thread.start(row(2, 192, 0))
    runner.trim(3, 0)
    thread.drop()
    assert not thread.is_busy
    for one in (row(2, 60, 0), row(3, 64, 0)):
        assert thread.start(one)
        found = fetched(thread)
        np.testing.assert_allclose(found, alone(runner, one), atol=CLOSE)


def test_what_fills_a_chunk_up_counts_for_nothing(
    runner: LlamaRunner, threads: list[PromptThread]
) -> None:
    first, rest = row(2, 50, 0, 0), row(2, 20, 50)
    assert threads[0].start(first, 64) and threads[0].fetch() is not None
    assert threads[0].holds(rest)
    assert threads[0].start(rest, 64)
    found = fetched(threads[0])
    assert found.shape[0] == 1
    runner.trim(2, 0)
    runner.run([first])
    np.testing.assert_allclose(found, runner.run([rest]), atol=CLOSE)
    # Where the cells are too few, or the tokens of a batch or the positions of the model, nothing does.
    for first_pos in range(0, 480, 160):
        assert threads[1].start(row(3, 160, first_pos, 0)) and threads[1].fetch() is not None
    for last, n_least, n_tokens in [(row(3, 30, 480), 64, 30), (row(2, 20, 0), 193, 20)]:
        assert threads[1].start(last, n_least) and threads[1].n_tokens == n_tokens
        assert threads[1].fetch() is not None


def test_nothing_lies_behind_the_positions_that_a_model_knows(
    runner: LlamaRunner, threads: list[PromptThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp ends the process where a model has a table of positions."""
    monkeypatch.setattr(runner._llama, "n_ctx_train", 100)
    for first_pos, n_tokens in [(36, 64), (37, 20)]:
        assert threads[0].start(row(2, first_pos, 0, 0)) and threads[0].fetch() is not None
        assert threads[0].start(row(2, 20, first_pos), 64) and threads[0].n_tokens == n_tokens
        assert threads[0].fetch() is not None
        runner.trim(2, 0)


def test_what_does_not_fit_is_refused(runner: LlamaRunner, threads: list[PromptThread]) -> None:
    assert not threads[0].start(row(2, 64, 449))
    assert not threads[1].start(row(2, 193, 0))  # more than it computes at once
    assert not threads[0].is_busy


@pytest.mark.parametrize(
    ("n_threads", "cells", "is_on", "n"),
    [
        (1, 512, True, 0), (2, 512, True, 2), (3, 512, True, 2), (4, 512, True, 0), (2, 0, True, 0),
        (2, 512, False, 0),
    ],
)  # fmt: skip
def test_how_many_threads_there_are(n_threads: int, cells: int, is_on: bool, n: int) -> None:
    config = msgspec.structs.replace(
        CONFIG, n_threads=n_threads, prompt_cells=cells, prompts_beside=is_on
    )
    assert config.n_prompt_threads == n


def test_a_system_that_refuses_another_priority_computes_prompts_all_the_same(
    runner: LlamaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    thread = PromptThread(runner.prompt_threads[0].context, threading.Event())
    assert thread.start(row(2, 8, 0)) and fetched(thread).any()
    runner.trim(2, 0)
