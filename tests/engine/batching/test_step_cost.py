"""Cost curves and the chunks that they lead to, by table: no weights, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.batching.scheduler import MIN_CHUNK
from edgeagent.engine.batching.step_cost import MASKED, STRETCH, StepCost, StepLoad, pick_chunk
from edgeagent.types.step_costs import TILE, StepCosts

# SmolLM2-135M Q4_0 on two threads of one Xeon core: 64 tokens cost less than 48.
CLIFF = {
    1: 0.017, 2: 0.020, 4: 0.029, 8: 0.047, 16: 0.068, 32: 0.128, 48: 0.197, 63: 0.240, 64: 0.123,
    112: 0.219, 128: 0.250, 256: 0.490, 512: 1.0,
}  # fmt: skip
# The same model in Q4_1 on two cores of a Zen 4: no cliff.
SMOOTH = {1: 0.012, 8: 0.044, 16: 0.065, 32: 0.106, 64: 0.229, 128: 0.419, 256: 0.829, 512: 1.62}


def chosen(curve: dict[int, float], n_decode: int, n_pending: int, bound_s: float) -> int:
    cost = StepCost(StepCosts(step_s=curve))
    return pick_chunk(
        lambda n: cost.predict(StepLoad(n_decode, n)) if n_decode + n else 0.0,
        [n - n_decode for n in cost.sizes],
        n_pending,
        512 - n_decode,
        bound_s,
        MIN_CHUNK,
    )


@pytest.mark.parametrize(
    ("curve", "n_decode", "n_pending", "bound_s", "expected"),
    [
        (CLIFF, 0, 10, 0.6, 10),  # less than the least chunk: all
        (CLIFF, 0, 64, 0.6, 64),
        (CLIFF, 0, 1000, 0.15, 64),  # 48 would fit as well, at three times the cost of a token
        (CLIFF, 7, 1000, 0.15, 57),  # the tokens of answers count
        (CLIFF, 7, 1000, 0.1, 57),  # worth a step that is a little too long
        (CLIFF, 7, 1000, 0.6, 57),  # tokens of answers cost next to nothing beside a chunk
        (CLIFF, 0, 128, 0.6, 128),
        (CLIFF, 0, 112, 0.2, 96),  # and 16 later: 64 would leave 48
        (CLIFF, 7, 1000, 0.01, MIN_CHUNK),  # nothing fits: somebody has to go on
        (SMOOTH, 7, 1000, 0.15, 25),
        (SMOOTH, 0, 300, 0.6, 172),
        (SMOOTH, 0, 300, 60.0, 300),
    ],
)
def test_a_chunk_lies_on_the_good_side_of_a_cliff(curve, n_decode, n_pending, bound_s, expected):
    assert chosen(curve, n_decode, n_pending, bound_s) == expected


@pytest.mark.parametrize(
    ("n_decode", "bound_s", "expected"),
    [
        (0, 0.6, 128),
        (1, 0.15, 63),  # with the token of an answer a tile: a step that is longer, but worth it
        (1, 0.1, MIN_CHUNK),  # not at any length
        (4, 0.15, 60),
        (7, 0.15, MIN_CHUNK),
    ],
)
def test_far_into_a_prompt_a_chunk_fills_a_tile(n_decode: int, bound_s: float, expected: int):
    # What cells cost on the Zen 4 with two threads: outside of tiles three times as much.
    cost = StepCost(StepCosts(step_s=SMOOTH, cell_s=2.7e-6, tiled_cell_s=0.95e-6))
    n = pick_chunk(
        lambda n: cost.predict(StepLoad(n_decode, n, 20.0 * n_decode, 1000 + n / 2)) if n_decode + n else 0.0,
        [n - n_decode for n in cost.sizes],
        5000,
        512 - n_decode,
        bound_s,
        MIN_CHUNK,
    )  # fmt: skip
    assert n == expected


@given(
    n_decode=st.integers(0, 16), n_pending=st.integers(1, 4000), bound_s=st.floats(0.001, 3),
    curve=st.sampled_from([CLIFF, SMOOTH]),
)  # fmt: skip
def test_a_chunk_fits_into_batch_and_bound(n_decode, n_pending, bound_s, curve):
    n = chosen(curve, n_decode, n_pending, bound_s)
    assert 1 <= n <= min(n_pending, 512 - n_decode)
    cost = StepCost(StepCosts(step_s=curve))
    assert n <= MIN_CHUNK or cost.predict(StepLoad(n_decode, n)) <= STRETCH * bound_s


def test_nothing_is_interpolated_across_the_size_of_a_tile():
    curve = {8: 0.05, 32: 0.13, 48: 0.20, TILE: 0.12, 128: 0.25}
    cost = StepCost(StepCosts(step_s=curve))
    assert cost.predict(StepLoad(0, TILE - 1)) == pytest.approx(0.20 * 63 / 48)
    assert cost.predict(StepLoad(0, 96)) == pytest.approx((0.12 + 0.25) / 2)
    assert cost.predict(StepLoad(0, 40)) == pytest.approx(0.165)
    assert cost.predict(StepLoad(0, 256)) == pytest.approx(
        0.5
    )  # beyond the curve: the rate of its end


COSTS = StepCosts(step_s={8: 0.05, 64: 0.12, 128: 0.25}, cell_s=4e-6, tiled_cell_s=1e-6)


def test_a_step_as_it_was_measured_costs_what_was_measured():
    cost = StepCost(COSTS)
    for n, seconds in COSTS.step_s.items():
        assert cost.predict(StepLoad(0, n, 0, n / 2)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("load", "added_s"),
    [
        (StepLoad(8, 0, 4000), (4000 - 8 * 4) * 4e-6),
        (StepLoad(0, 64, 0, 532), 64 * 500 * 1e-6),
        # In a tile with tokens of answers, every token meets the cells of every answer.
        (StepLoad(4, 60, 2000, 32), 64 * 2000 * 1e-6),
        # Cells of others are passed, by each token.
        (StepLoad(0, 64, 0, 32, n_used=1032), 64 * 1000 * MASKED * 4e-6),
        (StepLoad(8, 0, 4000, n_used=4000), (4000 - 8 * 4) * 4e-6 + 7 * 4000 * MASKED * 4e-6),
    ],
)
def test_cells_that_are_attended_to_cost_more_outside_of_tiles(load: StepLoad, added_s: float):
    cost = StepCost(COSTS)
    assert cost.predict(load) == pytest.approx(COSTS.step_s[load.n_tokens] + added_s)


TWO = StepCosts(
    step_s={1: 0.008, 8: 0.032, 64: 0.19, 128: 0.39}, alone_s={1: 0.013, 8: 0.06, 128: 0.74},
    cell_s=2e-6, tiled_cell_s=1e-6, n_threads=2, n_heads=9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("load", "seconds"),
    [
        (StepLoad(1, 0), 0.008),
        (StepLoad(1, 0, n_threads=1), 0.013),
        (StepLoad(1, 0, n_threads=1, n_beside=1), 0.013),  # a core for each
        (StepLoad(1, 0, n_threads=1, n_beside=2), 1.5 * 0.013),  # three threads on two cores
        (StepLoad(0, 128, 0, 64, n_threads=1, n_beside=2), 1.5 * 0.74),
        # With one thread a cell costs twice as much, and no row of a tile is wasted.
        (StepLoad(0, 128, 0, 564, n_threads=1), 0.74 + 2 * 128 * 500 * 1e-6),
        (StepLoad(0, 128, 0, 564), 0.39 + 64 * 24 / 9 * 500 * 1e-6),
    ],
)
def test_a_step_beside_prompts_has_one_thread_and_its_part_of_the_cores(
    load: StepLoad, seconds: float
):
    assert StepCost(TWO).predict(load) == pytest.approx(seconds, rel=2e-3)


def test_what_steps_with_one_thread_take_says_nothing_of_others():
    cost = StepCost(TWO)
    for _ in range(60):
        cost.observe(StepLoad(1, 0, n_threads=1, n_beside=2), 0.03)
    assert cost.predict(StepLoad(1, 0, n_threads=1, n_beside=2)) == pytest.approx(0.03, rel=0.02)
    assert cost.predict(StepLoad(1, 0)) == pytest.approx(0.008, rel=2e-3)


def test_own_steps_correct_the_curve_where_they_fell_and_one_slow_step_does_not():
    cost = StepCost(StepCosts(step_s=SMOOTH))
    cost.observe(StepLoad(0, 64), 20.0)
    assert cost.predict(StepLoad(0, 64)) < 1.5 * SMOOTH[64]
    for _ in range(40):
        cost.observe(StepLoad(0, 64), 0.115)
    assert cost.predict(StepLoad(0, 64)) == pytest.approx(0.115, rel=0.05)
    for _ in range(40):
        cost.observe(StepLoad(8, 0), 0.088)
    assert cost.predict(StepLoad(8, 0)) == pytest.approx(0.088, rel=0.05)
    assert cost.predict(StepLoad(0, 64)) == pytest.approx(0.115, rel=0.05), (
        "decoding says nothing of prompts"
    )


def test_steps_beside_a_hidden_program_are_not_taken_for_undisturbed_ones():
    cost, load = StepCost(StepCosts(step_s=SMOOTH)), StepLoad(8, 0)
    for _ in range(20):
        cost.observe(load, 3 * SMOOTH[8])
    assert cost.predict(load) == pytest.approx(3 * SMOOTH[8])
    assert cost.undisturbed(load) == pytest.approx(SMOOTH[8])
    for _ in range(20):  # what was measured was disturbed
        cost.observe(load, SMOOTH[8] / 2)
    assert cost.undisturbed(load) == cost.predict(load) == pytest.approx(SMOOTH[8] / 2)


def test_a_device_that_slows_down_gets_smaller_chunks_of_every_size():
    cost = StepCost(StepCosts(step_s=SMOOTH))
    for _ in range(40):
        cost.observe(StepLoad(0, 32), 2 * SMOOTH[32])
    assert cost.predict(StepLoad(0, 256)) > 1.4 * SMOOTH[256]


BESIDE = StepLoad(7, 64, decode_cells=3500, prompt_depth=32)


def test_a_step_whose_prompts_are_computed_apart_costs_its_parts():
    """64 tokens in a tile meet the cells of the answers; 16 are never apart."""
    costs = StepCosts(step_s=SMOOTH, cell_s=2e-6, tiled_cell_s=4e-7)
    together, apart = StepCost(costs), StepCost(costs, can_part=True)
    answers, prompt = StepLoad(7, 0, decode_cells=3500), StepLoad(0, 64, prompt_depth=32)
    expected = together.predict(answers) + together.predict(prompt)
    assert apart.predict(BESIDE) == pytest.approx(expected)
    assert expected < together.predict(BESIDE)
    few = BESIDE._replace(n_prefill=16)
    assert apart.predict(few) == together.predict(few)
    assert apart.predict(prompt) == together.predict(prompt)


def test_what_a_parted_step_took_is_learned_of_its_prompt():
    costs = StepCosts(step_s=SMOOTH, cell_s=2e-6, tiled_cell_s=4e-7)
    cost = StepCost(costs, can_part=True)
    answers_s = cost.predict(StepLoad(7, 0, decode_cells=3500))
    for _ in range(40):
        cost.observe(BESIDE, answers_s + 0.5)
    assert cost.predict(StepLoad(7, 0, decode_cells=3500)) == pytest.approx(answers_s)
    assert cost.predict(BESIDE) == pytest.approx(answers_s + 0.5, rel=0.1)
