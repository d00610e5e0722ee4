"""The probe: everything about this device that can be found out by reading files, in a few milliseconds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeagent.device.accelerators import Accelerator, read_accelerators
from edgeagent.device.board import Board, read_board
from edgeagent.device.capacity import Capacity
from edgeagent.device.cgroup import read_limits, read_mounts
from edgeagent.device.cores import Cores, read_cores
from edgeagent.device.cpu import Cpu, read_cpu, read_processors
from edgeagent.device.memory import Memory, read_memory
from edgeagent.device.operating_system import System, read_system
from edgeagent.device.power import Power, read_power
from edgeagent.device.storage import Storage, read_storage
from edgeagent.device.system_files import SystemFiles
from edgeagent.device.thermal import Thermal, read_thermal


class Device(msgspec.Struct, frozen=True):
    """The result of one probe; a plain value, safe to share and to write as JSON.

    Unknown values are None; if that matters, `notes` says why.
    """

    board: Board
    cpu: Cpu
    cores: Cores
    memory: Memory
    storage: Storage
    thermal: Thermal
    power: Power
    accelerators: tuple[Accelerator, ...]
    system: System
    notes: tuple[str, ...] = ()

    @property
    def capacity(self) -> Capacity:
        """The numbers from which profiles are resolved."""
        return Capacity(
            n_threads_max=self.cores.n_threads_max,
            n_performance_cores=self.cores.n_performance_usable,
            n_physical_cores=self.cores.n_physical_usable,
            ram_usable_bytes=self.memory.usable_bytes,
            ram_available_bytes=self.memory.available_bytes,
        )


def probe(
    root: Path = Path("/"), *, state_dir: Path | None = None, worker_pid: int | None = None
) -> Device:
    """Examine the machine whose /proc, /sys, /dev and /etc are under `root`.

    `state_dir` is where models and data will be stored; it need not exist. `worker_pid` is that of
    `read_memory`. Never raises for missing or
    malformed files. Opens no device, starts no process, and takes milliseconds, so it may be called again
    to see what has changed (heat, power, memory).
    """
    tree = SystemFiles(root)
    mounts = read_mounts(tree)
    limits = read_limits(tree, mounts)
    board = read_board(tree)
    processors = read_processors(tree)
    cpu = read_cpu(tree, processors)
    return Device(
        board=board,
        cpu=cpu,
        cores=read_cores(tree, processors, limits),
        memory=read_memory(tree, limits, worker_pid),
        storage=read_storage(tree, mounts, state_dir),
        thermal=read_thermal(tree),
        power=read_power(tree),
        accelerators=read_accelerators(tree, board.compatible),
        system=read_system(tree, board, cpu, mounts),
        notes=tuple(tree.notes),  # last, since the readers above add to them
    )
