"""What an answer has cost in energy, from readings at known times and from a made-up sysfs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from edgeagent.device.energy import EnergyReading
from edgeagent.device.system_files import SystemFiles
from edgeagent.serving import energy_watch
from edgeagent.serving.energy_watch import EnergyHistory, EnergyWatch
from edgeagent.serving.routes import Routes, route_request
from edgeagent.settings.routing import RoutingSettings
from tests.serving.fakes import FakeModels
from tests.serving.test_model_usage import ROW

MODELS = FakeModels({"generate": ["small", "middle", "large"]})
RAPL = "sys/class/powercap/intel-rapl:0"


def history(*steps: tuple[float, EnergyReading]) -> EnergyHistory:
    found = EnergyHistory()
    for at_s, reading in steps:
        found.add(at_s, reading)
    return found


def counter(joules: float) -> EnergyReading:
    return EnergyReading(joules)


def sensor(watts: float, name: str = "ina") -> EnergyReading:
    return EnergyReading(None, {name: watts})


NOTHING = EnergyReading()


@pytest.mark.parametrize(
    ("steps", "span", "joules"),
    [
        ([(0, counter(50)), (1, counter(60)), (2, counter(90))], (0, 2), 40),
        ([(0, counter(50)), (1, counter(60)), (2, counter(90))], (0.5, 1.5), 20),
        ([(0, counter(50)), (1, counter(60))], (0.5, 1.5), 10),
        ([(0, counter(50)), (1, counter(60))], (-0.5, 1), 15),
        ([(0, counter(50)), (1, counter(60))], (-9, 1), None),
        ([(0, counter(50)), (1, counter(60))], (0, 9), None),
        ([(0, counter(50)), (1, counter(2))], (0, 1), None),
        ([(0, counter(50)), (1, counter(2)), (2, counter(5))], (1, 2), 3),
        ([(0, counter(50)), (100, counter(900)), (101, counter(910))], (99, 101), 20),
        ([(0, sensor(4)), (1, sensor(6)), (2, sensor(6))], (0, 2), 11),
        ([(0, sensor(4)), (1, sensor(6, "battery"))], (0, 1), None),
        ([(0, sensor(4)), (1, sensor(4)), (2, NOTHING)], (0, 1), None),
        ([(0, NOTHING), (1, NOTHING)], (0, 1), None),
        ([(0, counter(1))], (0, 1), None),
        ([], (0, 1), None),
    ],
)
def test_the_energy_of_a_span_is_what_was_measured_in_it(steps, span, joules):
    found = history(*steps).used(*span)
    assert found == (pytest.approx(joules) if joules is not None else None)


def sysfs(root: Path, microjoules: int) -> Path:
    path = root / RAPL / "energy_uj"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(microjoules))
    return path


async def steps(watch: EnergyWatch, n: int) -> None:
    async with asyncio.timeout(10):
        while len(watch.history._steps) < n:
            await asyncio.sleep(0.005)


async def test_a_route_counts_the_energy_of_an_answer_and_takes_a_smaller_model(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(energy_watch, "STEP_S", 0.01)
    path = sysfs(tmp_path, 1_000_000)
    health = SimpleNamespace(n_running=1, n_waiting=0)
    client = SimpleNamespace(health=health)
    loaded = SimpleNamespace(model_id="large", state="loaded", client=client)
    settings = RoutingSettings(
        candidates=["small", "large"], budgets={"energy_j": 5, "energy_per_key_day_j": 100}
    )
    routes = Routes(settings, MODELS, lambda: [loaded], tmp_path)  # type: ignore[arg-type, list-item, return-value]
    best = route_request("auto:quality")
    assert routes.decide(best).model_id == "large"
    watch = routes._energy
    assert watch is not None and routes.state().energy_source == "rapl"
    await steps(watch, 2)
    path.write_text("91000000")
    await steps(watch, 8)
    row = routes.note(msgspec.structs.replace(ROW, total_ms=1000.0, queue_ms=0.0))
    assert row.energy_j is not None and row.energy_j > 5
    decision = routes.decide(best)
    assert (decision.model_id, decision.reason) == ("small", "budget")
    assert routes.state("key_ann").joules_of_key == {"large": row.energy_j}
    assert routes.state("key_bob").joules_of_key == {}
    health.n_running = 0
    monkeypatch.setattr(watch, "_until_s", 0.0)
    assert watch._task is not None
    await asyncio.wait_for(watch._task, 10)  # no reading while nothing runs


async def test_where_nothing_measures_no_request_is_kept_from_the_larger_model(tmp_path: Path):
    settings = RoutingSettings(candidates=["small", "large"], budgets={"energy_j": 1e-9})
    routes = Routes(settings, MODELS, list, tmp_path)  # type: ignore[arg-type]
    for _ in range(2):
        decision = routes.decide(route_request("auto:quality"))
        assert decision.model_id == "large"
        assert "unmeasured" in " ".join(map(str, decision.trace))
        assert routes.note(ROW).energy_j is None
    assert routes._energy is not None and routes._energy._task is not None
    await asyncio.wait_for(routes._energy._task, 10)
    plain = Routes(RoutingSettings(), MODELS, list, tmp_path)  # type: ignore[arg-type]
    assert plain._energy is None and plain.state().energy_source is None


def test_a_reading_without_an_event_loop_is_left_out(tmp_path: Path):
    watch = EnergyWatch(SystemFiles(tmp_path), lambda: False)
    watch.begin()
    assert watch._task is None and watch.used(1.0, 1) is None
