"""Measures this device: memory, arithmetic, disk, tensor types, and a real model. Takes less than 30 seconds.

All parts run in processes of their own. Results are stored in the state directory under a fingerprint of
hardware and libraries; another kernel, llama.cpp or core count requires a new measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeagent.device.engine_flags_store import EngineFlagsStore
from edgeagent.device.measurement import Measurement
from edgeagent.device.measurement_store import MeasurementStore, fingerprint
from edgeagent.device.probe import Device
from edgeagent.device.step_cost_store import StepCostStore
from edgeagent.device.tensor_rates import (
    TensorRates,
    TensorRateStore,
    least_disturbed,
    measure_tensors,
)
from edgeagent.types.measurement import ModelMeasurement
from edgeagent.worker import spawn

MACHINE_LIMIT_S = 5.0
TENSORS_LIMIT_S = 8.0
MODEL_LIMIT_S = 13.0
COMPUTING_LIBRARIES = ("llama-cpp-python", "numpy")

Progress = Callable[[str, float], None]


@dataclasses.dataclass(eq=False)
class StopSignal:
    """Lets another thread stop a measurement by killing its child process."""

    is_set: bool = False
    _process: subprocess.Popen[str] | None = None
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            if self._process is not None:
                self._process.kill()

    def watch(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._process = process
            if self.is_set:
                process.kill()


class DeviceBenchmark:
    """Measurements of this device with these libraries. Any thread, one measurement at a time."""

    def __init__(self, device: Device, state_dir: Path) -> None:
        self._device = device
        self._store = MeasurementStore(state_dir)
        self._key = fingerprint(device, _versions())
        self.step_costs = StepCostStore(state_dir, self._key)
        self.engine_flags = EngineFlagsStore(state_dir, self._key)
        self._tensors = TensorRateStore(state_dir, self._key)

    def kept(self) -> Measurement | None:
        """The stored measurement, if it is still valid."""
        return self._store.load(self._key)

    def tensor_rates(self, n_threads: int) -> TensorRates | None:
        """What is kept of the speed of tensor types with so many threads, if it is still valid."""
        return self._tensors.load(n_threads)

    def run_tensors(
        self, n_threads: int, progress: Progress, stop: StopSignal | None = None, *,
        before: TensorRates | None = None,
    ) -> TensorRates:  # fmt: skip
        """Measure the speed of tensor types and store it; blocks for about 8 s. Higher figures of `before`
        stay."""
        stop = stop or StopSignal()
        found = measure_tensors(
            self._device, n_threads, limit_s=TENSORS_LIMIT_S, progress=progress, watch=stop.watch
        )
        if before is not None:
            found = least_disturbed(before, found)
        if found.rates and not stop.is_set:
            with contextlib.suppress(OSError):  # the result can still be used
                self._tensors.save(found)
        return found

    def run(
        self, model: Path | None, progress: Progress, stop: StopSignal | None = None
    ) -> Measurement:
        """Measure and store the result; blocks for up to about 30 s.

        `progress` gets the current part and the share that is done. A stopped measurement is not stored.
        """
        # A daemon measures once, on a thread, and most never do.
        from edgeagent.device.microbenchmarks import measure

        stop = stop or StopSignal()
        machine = measure(
            self._device,
            file=model,
            limit_s=MACHINE_LIMIT_S,
            progress=lambda what, share: progress(what, 0.2 * share),
        )
        if not stop.is_set:
            n_threads = max(1, self._device.capacity.n_performance_cores)
            self.run_tensors(n_threads, lambda what, share: progress(what, 0.2 + 0.3 * share), stop)
        found = None
        if model is not None and not stop.is_set:
            found = self._model(model, progress, stop)
        measurement = msgspec.structs.replace(machine, model=found)
        if not stop.is_set:
            with contextlib.suppress(OSError):  # the result can still be shown
                self._store.save(self._key, measurement)
            progress("done", 1.0)
        return measurement

    def _model(self, path: Path, progress: Progress, stop: StopSignal) -> ModelMeasurement | None:
        from edgeagent.device.microbenchmarks import thread_counts

        counts = ",".join(map(str, thread_counts(self._device)))
        begun = time.monotonic()
        with spawn.start(
            "edgeagent.engine.llama.measure",
            str(path.absolute()),
            "--threads",
            counts,
            "--limit",
            str(MODEL_LIMIT_S),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            stop.watch(process)
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                if "result" in message:
                    return msgspec.convert(message["result"], ModelMeasurement, strict=False)
                share = min(1.0, (time.monotonic() - begun) / MODEL_LIMIT_S)
                progress(message.get("doing", ""), 0.5 + 0.5 * share)
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in COMPUTING_LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
