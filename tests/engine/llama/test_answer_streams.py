"""Answers in streams of their own: the logits that they have in the cache of all, and no cell lost."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.batching.step_runner import LlamaRunner, Row, StepAborted
from edgeagent.engine.llama import answer_streams
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from tests.engine.llama.rows import CLOSE, MANY, logits, row

DEPTHS = (96, 40, 70, 96)  # tokens of each running sequence


@pytest.fixture(scope="module")
def llama(stories) -> Iterator[Llama]:
    llama = Llama(config(stories))
    yield llama
    llama.close()


@pytest.fixture
def runner(llama: Llama, stories) -> LlamaRunner:
    """Four sequences run, 0 to 3."""
    llama.clear()
    llama.arm()
    runner = LlamaRunner(llama, config(stories))
    for seq_id, depth in enumerate(DEPTHS):
        runner.run([row(seq_id, depth, 0)])
    return runner


def config(path) -> EngineConfig:
    return EngineConfig(
        model_id="s", path=str(path), n_ctx=2048, n_seq=5, n_threads=1, answer_cells=256
    )


def answers(n_more: int, only: tuple[int, ...] = (0, 1, 2, 3)) -> list[Row]:
    """The next token of each, `n_more` behind its prompt."""
    return [row(seq_id, 1, DEPTHS[seq_id] + n_more) for seq_id in only]


def n_streamed(runner: LlamaRunner) -> int:
    return len(runner.streams._held) if runner.streams is not None else 0


def steps(runner: LlamaRunner, n_used: int, n: int = 3) -> np.ndarray:
    return np.array([logits(runner, answers(i), n_used) for i in range(n)])


def cut_back(runner: LlamaRunner, only: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    for seq_id in only:
        runner.trim(seq_id, DEPTHS[seq_id])


def test_answers_have_the_logits_that_they_have_together(runner: LlamaRunner) -> None:
    together = steps(runner, 0)
    assert runner.n_walking == 4 and n_streamed(runner) == 0
    cut_back(runner)
    apart = steps(runner, MANY)
    assert runner.n_walking == 0 and n_streamed(runner) == 4
    np.testing.assert_allclose(apart, together, atol=CLOSE)


def test_their_cells_come_back_when_they_are_settled(runner: LlamaRunner) -> None:
    """Tokens in streams, then one in the cache of all, against the same there from the beginning."""
    found = []
    for n_used in (MANY, 0):
        steps(runner, n_used)
        for seq_id in range(4):
            runner.settle(seq_id)
        assert n_streamed(runner) == 0
        found.append(logits(runner, answers(3), 0))
        cut_back(runner)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_a_copy_has_the_tokens_that_were_computed_in_a_stream(runner: LlamaRunner) -> None:
    found = []
    for n_used in (MANY, 0):
        steps(runner, n_used)
        runner.copy(2, 4, DEPTHS[2] + 3)
        found.append(logits(runner, [row(2, 1, DEPTHS[2] + 3)._replace(seq_id=4)], 0))
        runner.trim(4, 0)
        cut_back(runner)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_a_copy_of_the_prompt_leaves_the_stream_alone(runner: LlamaRunner) -> None:
    steps(runner, MANY)
    runner.copy(2, 4, DEPTHS[2])
    assert n_streamed(runner) == 4


def test_packing_moves_what_is_in_the_cache_of_all(runner: LlamaRunner) -> None:
    wanted = steps(runner, 0)
    cut_back(runner)
    steps(runner, MANY, 2)
    runs = [CellRun(frozenset([i]), 0, depth) for i, depth in enumerate(DEPTHS)]
    more = [CellRun(frozenset([i]), depth, 2) for i, depth in enumerate(DEPTHS)]
    runner.pack(runs + more)
    assert n_streamed(runner) == 4
    np.testing.assert_allclose(logits(runner, answers(2), MANY), wanted[2], atol=CLOSE)
    for seq_id in range(4):
        runner.settle(seq_id)
    cut_back(runner)
    np.testing.assert_allclose(steps(runner, 0), wanted, atol=CLOSE)


@pytest.mark.parametrize("n_tokens", [1, 2, 5])
def test_drafted_tokens_are_taken_back(runner: LlamaRunner, n_tokens: int) -> None:
    """Rows with several tokens of an answer, of which all but the first were wrong."""
    found = []
    for n_used in (MANY, 0):
        rows = [
            row(i, n_tokens if i == 1 else 1, DEPTHS[i], n_tokens if i == 1 else 1)
            for i in range(4)
        ]
        first = logits(runner, rows, n_used)
        assert len(first) == 3 + n_tokens
        runner.trim(1, DEPTHS[1] + 1)
        found.append(np.concatenate([first, logits(runner, answers(1), n_used)]))
        cut_back(runner)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_a_prompt_beside_streams_keeps_the_order_of_rows(runner: LlamaRunner) -> None:
    found = []
    for n_used in (MANY, 0):
        rows = answers(0)
        rows.insert(1, row(4, 30, 0))
        found.append(logits(runner, rows, n_used))
        runner.trim(4, 0)
        cut_back(runner)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_gaps_between_streams_are_closed(runner: LlamaRunner) -> None:
    """The first answers end; the others go on with the same cells under lower numbers."""
    wanted = steps(runner, 0, 12)
    cut_back(runner)
    assert runner.streams is not None
    logits(runner, answers(0), MANY)
    for seq_id in (0, 2):
        runner.trim(seq_id, 0)
    rest = (1, 3)
    for i in range(1, 12):
        found = logits(runner, answers(i, rest), MANY)
        np.testing.assert_allclose(found, wanted[i][list(rest)], atol=CLOSE)
    assert sorted(stream.id for stream in runner.streams._held.values()) == [0, 1]


@pytest.mark.parametrize("waiting", [0, 2, 3, 4])
def test_an_answer_that_waits_while_all_streams_are_taken(
    runner: LlamaRunner, waiting: int
) -> None:
    """Its next token is still being drawn: its stream is no gap."""
    runner.run([row(4, 50, 0)])
    depths = (*DEPTHS, 50)

    def five(n_more: int, but: int = -1) -> list[Row]:
        return [row(i, 1, depths[i] + n_more) for i in range(5) if i != but]

    found = []
    for n_used in (MANY, 0):
        runner.run(five(0), n_used)
        assert n_streamed(runner) == (5 if n_used else 0)
        for i in range(1, 12):
            runner.run(five(i, waiting), n_used)
        found.append(logits(runner, [row(waiting, 1, depths[waiting] + 1)], n_used))
        for i in range(5):
            runner.settle(i)
            runner.trim(i, depths[i])
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_an_aborted_step_is_computed_again(runner: LlamaRunner) -> None:
    wanted = steps(runner, 0)
    cut_back(runner)
    steps(runner, MANY, 2)
    runner.abort()
    with pytest.raises(StepAborted):
        runner.run(answers(2), MANY)
    runner.arm()
    for seq_id, depth in enumerate(DEPTHS):
        runner.trim(seq_id, depth + 2)
    np.testing.assert_allclose(logits(runner, answers(2), MANY), wanted[2], atol=CLOSE)


def test_an_answer_that_outgrows_its_stream_goes_on_together(runner: LlamaRunner) -> None:
    found = []
    for n_used in (MANY, 0):
        for i in range(256 - DEPTHS[0] + 3):
            last = logits(runner, answers(i, (0, 3)), n_used)
        found.append(last)
        assert n_streamed(runner) == 0
        cut_back(runner, (0, 3))
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


@pytest.mark.parametrize(
    ("first", "n_used", "n_rows", "is_worth"),
    [
        (96, 96 + answer_streams.LEAST_MASKED, 2, True),
        (96, 95 + answer_streams.LEAST_MASKED, 2, False),  # others are short
        (220, 500, 2, False),  # no room is left behind it
        (0, MANY, 2, False),  # nothing to copy: it is a prompt
        (96, MANY, 1, False),  # nobody else computes
    ],
)
def test_what_is_worth_copying(
    llama: Llama, stories, first: int, n_used: int, n_rows: int, is_worth: bool
) -> None:
    llama.clear()
    runner = LlamaRunner(llama, config(stories))
    for seq_id in range(2):
        for at in range(0, first, 110):
            runner.run([row(seq_id, min(110, first - at), at)])
    runner.run([row(seq_id, 1, first) for seq_id in range(n_rows)], n_used)
    assert (n_streamed(runner) > 0) is is_worth


@pytest.mark.parametrize(
    ("wanted", "n_ctx", "n_seq", "n_cells"),
    [(1024, 16384, 8, 1024), (1024, 4096, 8, 512), (1024, 1024, 8, 0), (1024, 8192, 1, 0), (0, 8192, 8, 0)],
)  # fmt: skip
def test_how_many_cells_an_answer_has(wanted: int, n_ctx: int, n_seq: int, n_cells: int) -> None:
    config = EngineConfig(model_id="s", path="", n_ctx=n_ctx, n_seq=n_seq, answer_cells=wanted)
    assert config.n_answer_cells == n_cells
    assert msgspec.structs.replace(config, reproducible=True).n_answer_cells == 0


def test_states_of_another_form_turn_it_off(
    llama: Llama, stories, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_streams, "STREAMS_AT", 1)
    llama.clear()
    runner = LlamaRunner(llama, config(stories))
    assert "answer_streams_off" in caplog.text
    for seq_id, depth in enumerate(DEPTHS):
        runner.run([row(seq_id, depth, 0)])
    runner.run(answers(0), MANY)
    assert n_streamed(runner) == 0


def test_answers_whose_neighbours_wait_while_every_stream_is_taken(runner: LlamaRunner) -> None:
    """Those of some wait for forced tokens, or draw: there is no gap to close."""
    runner.run([row(4, 60, 0)])
    depths = (*DEPTHS, 60)
    assert n_streamed(runner) == 0
    everybody = [row(seq_id, 1, depth) for seq_id, depth in enumerate(depths)]
    logits(runner, everybody, MANY)
    assert n_streamed(runner) == len(depths)
    found = []
    for i in range(answer_streams.PATIENCE + 2):
        some = [row(seq_id, 1, depths[seq_id] + 1 + i) for seq_id in (1, 4)]
        found.append(logits(runner, some, MANY))
    for seq_id in (1, 4):
        runner.trim(seq_id, depths[seq_id] + 1)
        runner.settle(seq_id)
    again = [
        logits(runner, [row(seq_id, 1, depths[seq_id] + 1 + i) for seq_id in (1, 4)], 0)
        for i in range(answer_streams.PATIENCE + 2)
    ]
    np.testing.assert_allclose(np.array(found), np.array(again), atol=CLOSE)
