"""What the microbenchmarks have measured of a machine."""

from __future__ import annotations

import msgspec

from edgeagent.types.measurement import ModelMeasurement


class MeasuredRate(msgspec.Struct, frozen=True):
    """One value at one thread count."""

    n_threads: int
    value: float


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The measured rates of this machine, each the best of several passes, in 10^9 per second.

    `memory_gb_per_s`: reading a buffer far larger than the caches. `gemm_gflop_per_s`: float32 matrix
    products with numpy's BLAS. `disk_read_mb_per_s` (10^6): sequential, cache dropped. `model`: the speed
    of a real model, if there was one. `notes`: what is missing because the time ran out or the child
    failed.
    """

    measured_utc_ms: int
    wall_s: float
    buffer_bytes: int
    memory_gb_per_s: tuple[MeasuredRate, ...] = ()
    gemm_gflop_per_s: tuple[MeasuredRate, ...] = ()
    disk_read_mb_per_s: float | None = None
    model: ModelMeasurement | None = None
    notes: tuple[str, ...] = ()

    @property
    def best_memory_gb_per_s(self) -> float | None:
        """The highest bandwidth at any thread count."""
        return max((rate.value for rate in self.memory_gb_per_s), default=None)

    @property
    def best_gemm_gflop_per_s(self) -> float | None:
        """The highest rate at any thread count."""
        return max((rate.value for rate in self.gemm_gflop_per_s), default=None)
