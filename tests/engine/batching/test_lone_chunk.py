"""Chunks of a lone prompt that an arriving request ends, by table, and the prompt that loses one."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.lone_chunk import LoneChunk
from edgeagent.types.step_costs import StepCosts
from tests.engine.batching.test_prompts_beside import Beside, prompt
from tests.engine.fakes import reference


@pytest.mark.parametrize(
    ("expected_s", "after_s", "is_worth"),
    [
        (0.6, 0.0, True),
        (0.6, 0.29, True),
        (0.6, 0.31, False),  # more is done than left
        (0.15, 0.02, True),
        (0.15, 0.06, False),  # it ends soon
        (0.08, 0.0, False),
        (0.6, 2.0, False),  # it takes longer than it should: nobody knows how much is left
        (None, 0.0, False),  # nothing was measured
    ],
)
def test_a_chunk_is_ended_while_less_of_it_is_done_than_left(expected_s, after_s, is_worth):
    now = [5.0]
    chunk = LoneChunk(lambda: now[0])
    assert not chunk.is_worth_ending()
    chunk.begin(expected_s)
    now[0] += after_s
    assert chunk.is_worth_ending() is is_worth
    chunk.end()
    assert not chunk.is_worth_ending()


def test_an_arriving_request_ends_a_lone_chunk_and_both_are_answered():
    harness = Beside()
    harness.engine.take_costs(StepCosts(step_s={1: 0.01, 64: 0.6}))
    n_runs = []

    def arrive(rows) -> None:
        n_runs.append(len(rows[0].tokens))
        if len(n_runs) == 1:  # while the first chunk is computed
            harness.submit(2, prompt(2, 40))
            harness.engine.interrupt()

    harness.runner.before_step = arrive
    harness.submit(1, prompt(1, 200))
    harness.engine.step()
    assert harness.engine.health(0).n_steps == 0, "it was ended"
    harness.runner.arm()  # as threads do for their own contexts
    harness.engine.step()
    assert all(thread.is_busy for thread in harness.threads)
    harness.finish()
    for number, n in ((1, 200), (2, 40)):
        assert harness.tokens(number) == reference(prompt(number, n), 8)


def test_a_step_with_answers_is_not_ended():
    harness = Beside()
    harness.engine.take_costs(StepCosts(step_s={1: 1.0, 64: 2.0}))
    harness.submit(1, prompt(1, 5))
    harness.engine.step()
    harness.runner.before_step = lambda rows: harness.engine.interrupt()
    n_before = harness.engine.health(0).n_steps
    harness.engine.step()
    assert harness.engine.health(0).n_steps == n_before + 1
