"""The speed of tensor types: measured in a process of its own, kept by device and number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.device.probe import probe
from edgeagent.device.tensor_rates import (
    TensorRates,
    TensorRateStore,
    least_disturbed,
    measure_tensors,
)
from edgeagent.types.measurement import TensorRate

FOUND = TensorRates(1, 2, {"Q4_0": TensorRate(1e9, 3e9, True)})


def test_rates_are_kept_for_one_device_and_number_of_threads(tmp_path: Path):
    store = TensorRateStore(tmp_path / "state", "device")
    assert store.load(2) is None
    store.save(FOUND)
    more = TensorRates(2, 4, {"Q8_0": TensorRate(2e9, 5e9)})
    store.save(more)
    assert (store.load(2), store.load(4), store.load(1)) == (FOUND, more, None)
    assert TensorRateStore(tmp_path / "state", "another").load(2) is None


def test_of_two_measurements_the_higher_figures_stay():
    again = TensorRates(
        5, 2, {"Q4_0": TensorRate(2e9, 1e9, True, 6e9), "Q8_0": TensorRate(1e9, 1e9)}
    )
    found = least_disturbed(FOUND, again)
    assert found.rates == {"Q4_0": TensorRate(2e9, 3e9, True, 6e9), "Q8_0": TensorRate(1e9, 1e9)}
    assert (found.measured_utc_ms, found.n_threads) == (5, 2)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"\xff" * 20, b'{"\xff": {}}'])
def test_a_damaged_file_is_measured_anew_and_replaced(tmp_path: Path, content: bytes):
    (tmp_path / "tensor_rates.json").write_bytes(content)
    store = TensorRateStore(tmp_path, "device")
    assert store.load(2) is None
    store.save(FOUND)
    assert store.load(2) == FOUND


@pytest.mark.process
def test_what_the_time_suffices_for_is_measured_in_a_child(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeagent.device.tensor_rates._MOST_WEIGHTS", 1 << 22)
    told: list[str] = []
    found = measure_tensors(
        probe(), 1, limit_s=0.01, progress=lambda what, share: told.append(what)
    )
    assert list(found.rates) == ["Q4_0"] and set(told) == {"Q4_0"}
    rate = found.rates["Q4_0"]
    assert rate.decode > 0 and rate.prefill > 0 and rate.few > 0 and found.n_threads == 1


@pytest.mark.process
def test_a_child_that_is_ended_leaves_no_rates_and_raises_nothing():
    found = measure_tensors(probe(), 1, limit_s=0.01, watch=lambda process: process.kill())
    assert found.rates == {}
