"""Prompts in a context of their own: the logits that they have alone, and nothing left behind."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from edgeagent.engine.batching.step_runner import LlamaRunner, Row, StepAborted
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.prompt_context import COST_OF_MOVE
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import LEAST_APART
from tests.engine.llama.rows import CLOSE, MANY, logits, row

DEPTH = 96  # tokens of each running sequence
N_OTHERS = 3
USED = N_OTHERS * DEPTH


@pytest.fixture(scope="module")
def llama(stories) -> Iterator[Llama]:
    llama = Llama(config(stories))
    yield llama
    llama.close()


@pytest.fixture
def runner(llama: Llama, stories) -> Iterator[LlamaRunner]:
    """Three sequences run, 0 to 2."""
    llama.clear()
    runner = LlamaRunner(llama, config(stories))
    for seq_id in range(N_OTHERS):
        runner.run([row(seq_id, DEPTH, 0)])
    yield runner
    llama.arm()


def config(path) -> EngineConfig:
    return EngineConfig(
        model_id="s", path=str(path), n_ctx=2048, n_seq=4, n_threads=1, prompt_cells=512
    )


def test_a_prompt_beside_answers_has_the_logits_that_it_has_alone(
    runner: LlamaRunner, stories
) -> None:
    alone = Llama(config(stories))
    wanted = logits(LlamaRunner(alone, config(stories)), [row(3, 100, 0)], 0)
    alone.close()
    found = logits(runner, [row(3, 100, 0)], MANY)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("sizes", [[100], [64, 40], [40, 40, 40]])
def test_the_next_token_sees_the_cells_that_were_moved(
    runner: LlamaRunner, sizes: list[int]
) -> None:
    """Chunks apart, then a token in the main cache, against the same steps there."""
    found = []
    for n_used in (MANY, 0):
        first = 0
        for n in sizes:
            runner.run([row(3, n, first, n_outputs=int(n == sizes[-1]))], n_used)
            first += n
        found.append(logits(runner, [row(3, 1, first)], 0))
        runner.trim(3, 0)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


def test_rows_keep_their_order(runner: LlamaRunner) -> None:
    """Answers before, between and behind two prompts; one of these has no logits yet."""
    rows = [row(0, 1, DEPTH), row(1, 40, DEPTH, 0), row(2, 1, DEPTH), row(3, 48, 0)]
    apart = logits(runner, rows, MANY)
    for one in rows:
        runner.trim(one.seq_id, one.first_pos)
    together = logits(runner, rows, 0)
    assert apart.shape == together.shape == (3, runner.n_vocab)
    np.testing.assert_allclose(apart, together, atol=CLOSE)


def test_a_turn_behind_a_dialogue_brings_its_cells_along(runner: LlamaRunner) -> None:
    apart = logits(runner, [row(2, 50, DEPTH)], MANY)
    runner.trim(2, DEPTH)
    np.testing.assert_allclose(apart, logits(runner, [row(2, 50, DEPTH)], 0), atol=CLOSE)


def test_a_sequence_that_is_cut_back_does_not_go_on_with_old_cells(runner: LlamaRunner) -> None:
    runner.run([row(3, 64, 0, 0)], MANY)
    runner.trim(3, 10)
    other = Row(3, array("i", [5] * 60), 10, 1)
    apart = logits(runner, [other], MANY)
    runner.trim(3, 10)
    np.testing.assert_allclose(apart, logits(runner, [other], 0), atol=CLOSE)


def test_an_aborted_step_leaves_nothing_that_counts(runner: LlamaRunner) -> None:
    runner.abort()
    with pytest.raises(StepAborted):
        runner.run([row(0, 1, DEPTH), row(3, 64, 0)], MANY)
    runner.arm()
    for seq_id, n in ((0, DEPTH), (3, 0)):
        runner.trim(seq_id, n)
    again = logits(runner, [row(3, 64, 0)], MANY)
    runner.trim(3, 0)
    np.testing.assert_allclose(again, logits(runner, [row(3, 64, 0)], 0), atol=CLOSE)


def test_more_prompts_than_it_has_cells_for_are_computed_all_the_same(runner: LlamaRunner) -> None:
    """Four prompts of 200 tokens, where 512 cells are: the last chunks do not fit at once."""
    found = []
    for n_used in (MANY, 0):
        for seq_id in range(4):
            runner.trim(seq_id, 0)
        for first in (0, 100):
            out = logits(runner, [row(i, 100, first, int(first > 0)) for i in range(4)], n_used)
        found.append(out)
    assert found[0].shape == (4, runner.n_vocab)
    np.testing.assert_allclose(found[0], found[1], atol=CLOSE)


@pytest.mark.parametrize(
    ("n", "first", "n_outputs", "n_used", "is_worth"),
    [
        (LEAST_APART, 0, 1, 10 * COST_OF_MOVE, True),
        (LEAST_APART - 1, 0, 1, MANY, False),  # small
        (64, 0, 1, COST_OF_MOVE, False),  # nobody else has cells
        (64, 400, 1, 400 + COST_OF_MOVE, False),  # its own history costs more to move
        (64, 400, 1, 400 + 8 * COST_OF_MOVE, True),
        (64, 0, 64, MANY, False),  # every token has logits
        (64, 449, 1, MANY, False),  # longer than the context
    ],
)
def test_what_is_worth_moving(
    runner: LlamaRunner, n: int, first: int, n_outputs: int, n_used: int, is_worth: bool
) -> None:
    assert runner.prompts is not None
    assert runner.prompts.is_worth(row(3, n, first, n_outputs), n_used) is is_worth


@pytest.mark.parametrize(
    ("wanted", "n_ctx", "n_seq", "n_cells"),
    [(2048, 16384, 8, 2048), (2048, 4096, 8, 1024), (2048, 900, 8, 0), (2048, 8192, 1, 0), (0, 8192, 8, 0)],
)  # fmt: skip
def test_how_many_cells_there_are(wanted: int, n_ctx: int, n_seq: int, n_cells: int) -> None:
    config = EngineConfig(model_id="s", path="", n_ctx=n_ctx, n_seq=n_seq, prompt_cells=wanted)
    assert config.n_prompt_cells == n_cells
    assert msgspec.structs.replace(config, reproducible=True).n_prompt_cells == 0
