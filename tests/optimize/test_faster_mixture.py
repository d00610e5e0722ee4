"""Which types a mixture has, and how it is fitted to the bound of the divergence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.catalog.gguf.header import read_header
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.optimize.allocation import Option
from edgeagent.optimize.divergence import Divergence, Perplexity
from edgeagent.optimize.evaluate import EvaluationOptions, model_file
from edgeagent.optimize.faster_mixture import (
    MixtureCosts,
    fastest_within,
    measured_costs,
    seconds_by_type,
    worth_trying,
)
from edgeagent.optimize.mixture_trials import mixtures_tried
from edgeagent.optimize.requantization import RequantizedFile, Trials
from edgeagent.optimize.sensitivity import TensorCosts
from edgeagent.types.measurement import TensorRate
from tests.conftest import ROOT, TALES

pytestmark = pytest.mark.process

LICENSE = ROOT / "LICENSE"
KINDS = {"Q8_0": TensorRate(2e9, 2e9), "Q4_0": TensorRate(4e9, 4e9), "Q4_1": TensorRate(1e9, 3e9)}


def test_a_matrix_takes_its_share_of_prompt_and_answer_and_the_output_only_of_the_answer():
    header = read_header(TALES)
    sizes = {tensor.name: tensor.n_elements for tensor in header.tensors}
    found = seconds_by_type(header, KINDS, 100, 10)
    assert set(found["blk.0.ffn_up.weight"]) == {"Q8_0", "Q4_0", "Q4_1"}
    n = sizes["blk.0.ffn_up.weight"]
    assert found["blk.0.ffn_up.weight"]["Q4_1"] == pytest.approx(n * (100 / 3e9 + 10 / 1e9))
    output = "output.weight" if "output.weight" in sizes else "token_embd.weight"
    assert found[output]["Q8_0"] == pytest.approx(sizes[output] * (1 / 2e9 + 10 / 2e9))
    few = seconds_by_type(header, {"Q8_0": TensorRate(2e9, 2e9, few=4e9)}, 100, 10)
    assert few[output]["Q8_0"] == pytest.approx(sizes[output] * (1 / 2e9 + 5 / 2e9 + 5 / 4e9))


def test_only_types_that_are_faster_than_all_finer_ones_are_tried():
    seconds = {"Q8_0": 2.0, "Q6_K": 1.0, "Q5_K": 0.99, "Q4_0": 0.8, "Q4_1": 3.0, "IQ4_NL": 0.81}
    # Q4_0 and IQ4_NL have the same bytes: which of them is finer, the probes tell.
    assert worth_trying(seconds) == ["Q8_0", "Q6_K", "Q4_0", "IQ4_NL"]


def costs_of(**divergences: float) -> MixtureCosts:
    """Matrices that are Q8_0 for nothing, or Q4_0 in half of the time for a divergence."""
    options = {
        name: (Option("Q8_0", 2, 0.0), Option("Q4_0", 1, cost))
        for name, cost in divergences.items()
    }
    seconds = {name: {"Q8_0": 2.0, "Q4_0": 1.0} for name in divergences}
    costs = tuple(TensorCosts(name, given, None) for name, given in options.items())
    return MixtureCosts(seconds, costs, {})


def test_the_divergence_is_spent_where_it_saves_most_time():
    costs = costs_of(a=0.01, b=0.03, c=0.02)
    for most, coarse in ((0.0, ""), (0.015, "a"), (0.035, "ac"), (0.1, "abc")):
        found = costs.fastest_within(most)
        assert found is not None
        assert {name for name, kind in found.kinds.items() if kind == "Q4_0"} == set(coarse), most
        assert costs.divergence_of(found) <= most
    doubled = replace(costs, scale=2.0).fastest_within(0.035)
    assert doubled is not None and doubled.kinds == {"a": "Q4_0", "b": "Q8_0", "c": "Q8_0"}
    only_coarse = [replace(one, options=one.options[1:]) for one in costs.costs]
    assert fastest_within(only_coarse, costs.seconds, 0.01) is None


class DivergingTrials(Trials):
    """Files whose divergence is that of their types times a factor, with an error of a thousandth."""

    def __init__(self, folder: Path, bound: float, costs: MixtureCosts, factor: float) -> None:
        super().__init__(TALES, folder, EvaluationOptions(), bound, 1, lambda what, n, total: None)
        self.costs, self.factor, self.n_timed, self.n_scored = costs, factor, 0, 0

    async def scored(
        self, kind, recipe=None, columns=None, *, is_scored_whole=False
    ) -> RequantizedFile:
        assert recipe is not None and is_scored_whole
        mean = self.factor * sum(
            option.cost for one in self.costs.costs for option in one.options
            if option.kind == recipe.tensors[one.name]
        )  # fmt: skip
        self.n_scored += 1
        path = self.folder / f"{self.n_scored}.gguf"
        path.write_bytes(b"GGUF")
        found = Divergence(mean, 0.001, 0, 0, 0, 1)
        figures = replace(model_file(TALES), divergence=found, perplexity=Perplexity(2, 0, 9))
        return RequantizedFile(path, kind, model_file(TALES), figures)

    async def timed(self, made: RequantizedFile) -> RequantizedFile:
        self.n_timed += 1
        return made


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.0, 1.5, 3.0])
def test_a_mixture_is_fitted_to_the_bound_whatever_the_probes_said(tmp_path: Path, factor: float):
    layers = [t.name for t in read_header(TALES).tensors if ".ffn_" in t.name and len(t.shape) > 1]
    costs = costs_of(**dict.fromkeys(layers, 0.004))
    trials = DivergingTrials(tmp_path, 0.03, costs, factor)

    async def each() -> list[RequantizedFile]:
        return [one async for one in mixtures_tried(trials, costs)]

    *above, last = asyncio.run(each())
    assert all(one.largest_divergence > 0.03 for one in above)
    assert last.largest_divergence <= 0.03 and trials.n_timed == 1
    # No step of one matrix would be left, but for what a further file is not worth.
    assert last.divergence >= min(0.5 * 0.03, factor * 0.004 * len(layers))
    assert [path.name for path in tmp_path.iterdir()] == [last.path.name]


def test_matrices_are_probed_and_a_mixture_is_made_of_a_real_model(tmp_path: Path):
    options = EvaluationOptions(texts=(LICENSE,), n_ctx=64, max_chunks=6, n_runs=0)
    rates = Rates(1e9, 1.0, tensors={k: r for k, r in KINDS.items() if k != "Q4_1"})

    async def each() -> list[RequantizedFile]:
        costs = await measured_costs(
            TALES, tmp_path, rates, options, 0.02, n_prompt=512, n_answer=128, limit_s=60
        )
        assert costs is not None and {o.kind for o in costs.costs[0].options} == {"Q8_0", "Q4_0"}
        trials = Trials(TALES, tmp_path, options, 0.02, 4, lambda what, n, total: None)
        return [one async for one in mixtures_tried(trials, costs, n_most=3)]

    made = asyncio.run(each())[-1]
    assert made.largest_divergence <= 0.02 and made.file_type.startswith("mixed-")
    kinds = {tensor.type.name for tensor in read_header(made.path).tensors if len(tensor.shape) > 1}
    assert kinds >= {"Q8_0", "Q4_0"}  # rows of 172 columns stay as they are
