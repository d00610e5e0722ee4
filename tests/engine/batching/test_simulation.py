"""Policies of chunks replayed on cost curves of devices: what the engine picks is near the best of all."""

from __future__ import annotations

import pytest

from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts
from scripts.benchmarks.simulate import DEVICES, Arrival, dialogues, figures, policies, replay

CONFIG = EngineConfig(model_id="simulated", path="", n_threads=2)


@pytest.mark.parametrize("device", DEVICES)
def test_the_measured_curve_leads_to_the_best_rate_without_long_gaps(device: str):
    costs = StepCosts(step_s={n: ms / 1e3 for n, ms in DEVICES[device].items()})
    found = {
        name: figures(replay(dialogues(), costs, CONFIG, policy))
        for name, policy in policies(costs, CONFIG).items()
    }
    ours = found.pop("measured curve")
    assert ours["tok_s"] >= 0.98 * max(other["tok_s"] for other in found.values())
    assert ours["gap_max_s"] <= 2.1 * CONFIG.step_budget_ms / 1e3


def test_a_client_sends_its_next_request_after_its_last_answer():
    arrivals = [Arrival(0, 0.0, 20, 0, 2), Arrival(0, 1.0, 20, 19, 2), Arrival(1, 5.0, 20, 0, 1)]
    costs = StepCosts(step_s={1: 0.1, 16: 0.2, 64: 0.4})
    done = replay(arrivals, costs, CONFIG, 64)
    first, second, third = sorted(done, key=lambda one: one.sent_s)
    assert second.sent_s == pytest.approx(first.stamps[-1] + 1.0)
    assert third.sent_s == 5.0 and len(third.stamps) == 1
    assert [len(one.stamps) for one in (first, second)] == [2, 2]
