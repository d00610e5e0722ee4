"""The engine on simulated devices: its choices are near the best, and time passes as on the device."""

from __future__ import annotations

import pytest

from edgeagent.types.step_costs import StepCosts
from scripts.benchmarks.simulate import (
    CHUNKS,
    DEVICES,
    POLICIES,
    Policy,
    Replay,
    device_costs,
    figures,
    simulated_config,
)
from scripts.benchmarks.simulated_device import ANSWER_S, STEP_S, Machine
from scripts.benchmarks.simulated_load import Arrival, chats, dialogues, long_prompts

IN_TURN = Policy({"prompts_beside": False})


def replayed(arrivals: list[Arrival], costs: StepCosts, policy: Policy = IN_TURN, n_seq: int = 8):
    config = simulated_config(costs, n_seq, 16384)
    return Replay(arrivals, costs, config, policy).run()


@pytest.mark.parametrize("device", DEVICES)
def test_the_measured_curve_leads_to_the_best_rate_without_long_gaps(device: str):
    found = {
        name: figures(replayed(dialogues(3, 24), device_costs(device), policy))
        for name, policy in CHUNKS.items()
    }
    ours = found.pop("measured curve")
    assert ours["tok_s"] >= 0.98 * max(other["tok_s"] for other in found.values())
    assert ours["gap_max_s"] <= 2.1 * 0.15


@pytest.mark.parametrize("policy", POLICIES)
def test_every_answer_is_whole_and_its_client_waits_for_it(policy: str):
    arrivals = [*chats(3, 2, 5), Arrival(3, 0.0, 700, 30, 4)]
    done = replayed(arrivals, device_costs("zen4 q4_1"), POLICIES[policy])
    assert sorted(len(one.stamps) for one in done) == sorted(one.n_output for one in arrivals)
    for client in range(3):
        first, second = (one for one in done if one.arrival.client == client)
        assert second.sent_s == pytest.approx(first.stamps[-1] + second.arrival.gap_s)
        assert all(one.sent_s < one.stamps[0] for one in (first, second))


def test_a_step_takes_as_long_as_the_curve_says():
    costs = StepCosts(step_s={1: 0.1, 16: 0.2, 64: 0.4}, n_threads=2)
    (one,) = replayed([Arrival(0, 5.0, 17, 0, 3)], costs)
    first, second, third = one.stamps
    assert second - first == third - second == pytest.approx(0.1 + STEP_S + ANSWER_S)
    assert one.sent_s == 5.0 and first - one.sent_s == pytest.approx(0.2 * 17 / 16, abs=0.01), (
        "17 tokens, at the rate of 16"
    )


def test_threads_of_their_own_keep_answers_going_beside_long_prompts():
    costs = device_costs("zen4 q4_1")
    beside, in_turn = (
        figures(replayed(long_prompts(), costs, policy)) for policy in (Policy({}), IN_TURN)
    )
    assert beside["gap_p95_s"] < 0.5 * in_turn["gap_p95_s"]


class Job:
    """Stands for a thread with a chunk."""


def test_jobs_share_the_cores_and_end_in_their_time():
    machine = Machine(2)
    first, second = Job(), Job()
    machine.begin(first, 1.0)
    machine.begin(second, 3.0)
    machine.wait(10.0)
    assert machine.now_s == pytest.approx(1.0), "a core for each"
    assert not machine.is_running(first) and machine.is_running(second)
    machine.begin(first, 4.0)
    machine.compute(1.0, 1)  # three jobs on two cores
    assert machine.now_s == pytest.approx(2.5)
    machine.wait(10.0)
    assert machine.now_s == pytest.approx(3.5) and not machine.is_running(second)
    machine.compute(3.0, 1)  # beside one chunk, for two seconds
    assert machine.now_s == pytest.approx(6.5) and not machine.is_running(first)


def test_dialogues_that_go_on_together_have_no_gaps_but_the_one_before_they_begin():
    costs = device_costs("zen4 q4_1")
    found = figures(replayed(dialogues(3, 24), costs, POLICIES["threads of their own"]))
    eight_s = costs.step_s[8] + STEP_S + 8 * ANSWER_S
    assert found["gap_p95_s"] < 1.5 * eight_s < found["gap_max_s"] < 1.6
