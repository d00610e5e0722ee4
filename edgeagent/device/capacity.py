"""Capacity: the few numbers of a machine, probed or published, from which a profile is resolved."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Capacity(msgspec.Struct, frozen=True):
    """Cores and RAM that we may use; RAM is None if unknown.

    `n_threads_max` counts whole threads within affinity and quota; `n_performance_cores` and
    `n_physical_cores` count physical cores among the usable CPUs, before any quota.
    """

    n_threads_max: int
    n_performance_cores: int
    n_physical_cores: int
    ram_usable_bytes: int | None
    ram_available_bytes: int | None


class HasCapacity(Protocol):
    """A probed `Device` or a published `ReferenceMachine`."""

    @property
    def capacity(self) -> Capacity: ...
