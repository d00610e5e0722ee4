"""Step costs on disk: found again for the same model loaded in the same way, and only then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeagent.device.step_cost_store import FILE_NAME, StepCostStore
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts

CONFIG = EngineConfig(model_id="m", path="/models/m.gguf", n_threads=2, identity=(1, 2, 3, 4, 5))
COSTS = StepCosts(step_s={1: 0.01, 64: 0.2}, cell_s=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"n_threads": 4}, {"kv_type": "q8_0"}, {"identity": (1, 2, 9, 4, 5)}, {"reproducible": True}],
)
def test_costs_hold_for_one_way_of_loading(tmp_path: Path, change: dict[str, object]):
    store = StepCostStore(tmp_path, "device")
    store.save(CONFIG, COSTS)
    assert store.load(CONFIG) == COSTS
    assert store.load(msgspec.structs.replace(CONFIG, step_costs=COSTS, n_ctx=512)) == COSTS
    assert store.load(msgspec.structs.replace(CONFIG, **change)) is None
    assert StepCostStore(tmp_path, "another device").load(CONFIG) is None


def test_the_costs_of_the_models_measured_last_are_kept(tmp_path: Path):
    store = StepCostStore(tmp_path, "device")
    configs = [msgspec.structs.replace(CONFIG, path=f"/models/{n}.gguf") for n in range(18)]
    for config in configs:
        store.save(config, COSTS)
    assert [store.load(config) is None for config in configs] == [True] * 2 + [False] * 16


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"\xff" * 300_000, b'{"\xff": {}}'])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: bytes):
    (tmp_path / FILE_NAME).write_bytes(content)
    store = StepCostStore(tmp_path, "device")
    assert store.load(CONFIG) is None
    store.save(CONFIG, COSTS)
    assert store.load(CONFIG) == COSTS
