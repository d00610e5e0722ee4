"""Measuring the costs of steps while idle, on a model without weights and a clock of the test."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.idle_measurement import FIRST_PAUSE_S, QUIET_S, IdleMeasurement
from edgeagent.engine.batching.kv_cache import KVCache
from edgeagent.engine.batching.step_probe import ALONE_SIZES, N_TIMES, SIZES, StepProbe
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.worker_config import ComputeLimits
from tests.engine.fakes import FakeRunner

PER_TOKEN_S, PER_CELL_S = 0.001, 2e-6


class Device:
    """A runner on which every token costs a millisecond, and each cell that it attends to two us."""

    def __init__(self, n_cells: int = 4096) -> None:
        self.now_s = 0.0
        self.runner = FakeRunner(n_cells)
        self.runner.max_outputs = 8
        self.runner.before_step = self._spend

    def _spend(self, rows) -> None:
        for row in rows:
            self.now_s += len(row.tokens) * (PER_TOKEN_S + row.first_pos * PER_CELL_S)


def test_the_grid_is_what_the_steps_took_and_leaves_nothing_in_the_cache():
    device = Device()
    kv = KVCache(4096, 4, device.runner)
    probe = StepProbe(kv, device.runner, 256, 10.0, lambda: device.now_s)
    while not probe.is_over:
        probe.step()
    costs = probe.result()
    assert costs is not None
    assert costs.step_s == pytest.approx({n: n * PER_TOKEN_S for n in SIZES if n <= 256})
    assert (costs.cell_s, costs.tiled_cell_s) == pytest.approx((PER_CELL_S, PER_CELL_S))
    assert costs.alone_s == {}, "there is one thread only"
    assert kv.n_used == 0 and not any(device.runner.held.values())


def test_sizes_of_steps_beside_prompts_are_measured_with_one_thread():
    device = Device()
    n_threads = [2]
    device.runner.set_threads = lambda n: n_threads.append(n)
    spend = device.runner.before_step

    def shared(rows) -> None:
        spend(rows)
        device.now_s += PER_TOKEN_S * len(rows[0].tokens) * (2 - n_threads[-1])

    device.runner.before_step = shared
    probe = StepProbe(
        KVCache(4096, 4, device.runner), device.runner, 256, 10.0, lambda: device.now_s, n_threads=2
    )
    while not probe.is_over:
        probe.step()
    costs = probe.result()
    assert costs is not None and (costs.n_threads, costs.n_heads) == (2, device.runner.n_heads)
    assert costs.step_s == pytest.approx({n: n * PER_TOKEN_S for n in SIZES if n <= 256})
    assert costs.alone_s == pytest.approx({n: 2 * n * PER_TOKEN_S for n in ALONE_SIZES})


def test_costs_are_those_of_the_model_without_the_adapter_of_the_last_request():
    device = Device()
    adapters = set()
    device.runner.before_step = lambda rows: adapters.add(device.runner.adapter)
    device.runner.use_adapter("tone")
    StepProbe(KVCache(4096, 4, device.runner), device.runner, 64, 10.0).step()
    assert adapters == {None}


def test_times_that_other_programs_made_are_not_kept():
    device = Device()
    n_runs, n_sizes = 0, len([n for n in SIZES if n <= 64])

    def spend(rows) -> None:
        nonlocal n_runs
        n_runs += 1
        device.now_s += len(rows[0].tokens) * PER_TOKEN_S * (3 if n_runs > n_sizes else 1)

    device.runner.before_step = spend
    probe = StepProbe(
        KVCache(4096, 4, device.runner), device.runner, 64, 10.0, lambda: device.now_s
    )
    while not probe.is_over:
        probe.step()
    assert probe.result() is None


def test_sizes_that_no_step_may_have_are_left_out():
    device = Device()
    kv = KVCache(4096, 4, device.runner)
    probe = StepProbe(kv, device.runner, 512, 0.15, lambda: device.now_s)
    while not probe.is_over:
        probe.step()
    costs = probe.result()
    assert costs is not None and max(costs.step_s) == 128


def test_a_step_that_a_request_ended_is_measured_again():
    device = Device()
    kv = KVCache(4096, 4, device.runner)
    probe = StepProbe(kv, device.runner, 64, 10.0, lambda: device.now_s)
    spend = device.runner.before_step
    device.runner.before_step = lambda rows: (spend(rows), device.runner.abort())
    probe.step()
    assert not probe.is_running and kv.n_used == 0
    device.runner.before_step = spend
    while not probe.is_over:
        probe.step()
    n_runs = len([rows for rows in device.runner.steps if len(rows[0].tokens) == SIZES[0]])
    assert n_runs >= N_TIMES + 1
    assert probe.result() is not None


def test_a_long_prompt_that_a_request_ended_begins_anew():
    device = Device()
    kv = KVCache(4096, 4, device.runner)
    probe = StepProbe(kv, device.runner, 64, 10.0, lambda: device.now_s)
    while not probe.is_begun:
        probe.step()
    probe.step()
    probe.close()
    assert kv.n_used == 0 and not any(device.runner.held.values())
    while not probe.is_over:
        probe.step()
    costs = probe.result()
    assert costs is not None and costs.tiled_cell_s == pytest.approx(PER_CELL_S)
    assert kv.n_used == 0


def idle_engine(device: Device, told: list[StepCosts]) -> tuple[Engine, IdleMeasurement]:
    config = EngineConfig(model_id="m", path="", n_threads=2, n_ctx=4096, n_batch=256, n_seq=4)
    engine = Engine(
        config, device.runner, 4096, emit=lambda chunks: None,
        refuse=lambda request_id, error: None, forget=lambda request_id: None,
    )  # fmt: skip
    engine.probe.clock = lambda: device.now_s
    return engine, IdleMeasurement(engine, 2, told.append, clock=lambda: device.now_s)


def test_an_idle_engine_measures_once_after_a_pause_and_plans_by_it():
    device, told = Device(), []
    engine, measuring = idle_engine(device, told)
    assert measuring.is_idle and not measuring.step()
    device.now_s += QUIET_S
    assert not measuring.is_idle
    while not measuring.is_idle:
        assert measuring.step()
    assert len(told) == 1 and engine.chunks.is_measured
    device.now_s += 60
    assert measuring.is_idle and not measuring.step()


def test_nothing_is_measured_beside_other_programs():
    device, told = Device(), []
    _, measuring = idle_engine(device, told)
    measuring.limit(ComputeLimits(n_threads=2, n_cores_taken=1))
    device.now_s += QUIET_S
    assert measuring.is_idle
    measuring.limit(ComputeLimits(n_threads=2))
    assert not measuring.is_idle


def test_what_others_disturbed_is_measured_again_after_pauses_that_grow():
    device, told = Device(), []
    engine, measuring = idle_engine(device, told)
    n_runs, is_busy = 0, True

    def spend(rows) -> None:
        nonlocal n_runs
        n_runs += 1
        held_up = 4 if is_busy and n_runs % 3 else 1
        device.now_s += held_up * PER_TOKEN_S * sum(len(row.tokens) for row in rows)

    device.runner.before_step = spend
    rests = []
    device.now_s += QUIET_S
    for _ in range(3):
        while not measuring.is_idle:
            measuring.step()
        begun = device.now_s
        while measuring.is_idle:
            device.now_s += 0.25
        rests.append(device.now_s - begun)
    assert rests == pytest.approx([FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S], abs=0.3)
    assert not told and not engine.chunks.is_measured
    is_busy = False
    while not measuring.is_idle:
        measuring.step()
    assert len(told) == 1 and engine.chunks.is_measured
