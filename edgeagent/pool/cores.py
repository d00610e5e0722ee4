"""Divides the usable cores among the workers that are computing.

OpenMP's threads spin at barriers, so that one thread too many makes all of them several times slower. The
sum of threads therefore never exceeds the cores; it is divided again whenever a worker starts or stops
computing. With more workers than cores each gets one thread, which never waits at a barrier, and the kernel
divides the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from edgeagent.pool.resident_model import Resident
from edgeagent.types.throttle import Throttle
from edgeagent.types.worker_config import ComputeLimits
from edgeagent.worker.client import WorkerClient


def share_cores(n_cores: int, wanted: Sequence[int]) -> list[int]:
    """The threads for each active worker: at least one, at most as many as it wants.

    The first worker gets what is left over. The sum is at most `n_cores` unless there are more workers than
    cores.
    """
    given = [1] * len(wanted)
    left = n_cores - len(wanted)
    while left > 0:
        hungry = [i for i, n in enumerate(given) if n < wanted[i]]
        if not hungry:
            break
        poorest = min(hungry, key=lambda i: (given[i], i))
        given[poorest] += 1
        left -= 1
    return given


class CoreShares:
    """The cores of all workers, and how far the device holds them back. Event loop's thread only."""

    def __init__(self, n_cores: int, residents: Callable[[], list[Resident]]) -> None:
        self._n_cores = n_cores
        self._residents = residents
        self.throttle = Throttle()

    @property
    def pids(self) -> list[int]:
        """The processes of all workers."""
        return [client.pid for client in self._clients(self._residents()) if client.pid is not None]

    def hold_back(self, throttle: Throttle) -> None:
        """Keep to this from now on."""
        self.throttle = throttle
        self.divide()

    def divide(self) -> None:
        """Divide the cores among the leased models. An idle model keeps its threads until its next lease."""
        active = self._clients(resident for resident in self._residents() if resident.n_leases)
        throttle = self.throttle
        n_cores = min(self._n_cores, throttle.n_threads or self._n_cores)
        shares = share_cores(n_cores, [client.config.n_threads for client in active])
        for client, n_threads in zip(active, shares, strict=True):
            client.set_limits(
                ComputeLimits(
                    n_threads=n_threads,
                    chunk_share=throttle.chunk_share,
                    n_cores_taken=throttle.n_cores_taken,
                )
            )

    @staticmethod
    def _clients(residents: Iterable[Resident]) -> list[WorkerClient]:
        found = [resident.client for resident in residents]
        return [client for client in found if client is not None and client.is_alive]
