"""Whether the machine was quiet during a measurement: how many cores other programs used meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edgeagent.device.contention import CpuTimes, cores_taken, descendants, read_cpu_times
from edgeagent.device.system_files import SystemFiles

# Others may use a quarter of a core: that is what a desktop does at rest.
QUIET_CORES = 0.25
# The kernel counts in hundredths of a second; a share of less time than this says nothing.
LEAST_WALL_S = 0.2


class LoadWatch:
    """Counts from its creation. What this process and its running children use is not others'.

    Read it before the measured process ends: what an ended child has used counts as others'.
    """

    def __init__(self, tree: SystemFiles | None = None) -> None:
        self._tree = tree or SystemFiles(Path("/"))
        self._cpus = sorted(os.sched_getaffinity(0))
        self._before = self._read()
        self._started_s = time.monotonic()

    def others_cores(self) -> float | None:
        """Cores that other programs have used on average; None where it cannot be told."""
        after, wall_s = self._read(), time.monotonic() - self._started_s
        if self._before is None or after is None or wall_s < LEAST_WALL_S:
            return None
        return cores_taken(self._before, after, wall_s)

    def _read(self) -> CpuTimes | None:
        own = os.getpid()
        return read_cpu_times(self._tree, self._cpus, {own, *descendants(self._tree, own)})


def is_quiet(others_cores: float | None) -> bool:
    """Whether a measurement counts as one of a quiet machine. Where nothing is known, it does."""
    return others_cores is None or others_cores <= QUIET_CORES
