"""Contention: what programs other than ours use of the processor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from edgeagent.device.system_files import SystemFiles

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class CpuTimes(msgspec.Struct, frozen=True):
    """Seconds since boot: `busy_s` of the CPUs that we may use, by anybody; `own_s` by process of ours."""

    busy_s: float
    own_s: Mapping[int, float]


def read_cpu_times(tree: SystemFiles, cpus: Iterable[int], pids: Iterable[int]) -> CpuTimes | None:
    """The times of these CPUs and processes; None where /proc/stat cannot be read.

    Time that a hypervisor took away (steal) is busy: another machine has it.
    """
    names = {f"cpu{cpu}" for cpu in cpus}
    busy, is_known = 0, False
    for line in tree.lines("/proc/stat"):
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break  # the lines of CPUs are the first ones
        if name in names and len(fields) >= 8 and all(field.isdigit() for field in fields[:8]):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
            is_known = True
    if not is_known:
        return None
    own = {pid: _process_s(tree, pid) for pid in pids}
    return CpuTimes(busy / TICKS_PER_S, own)


def descendants(tree: SystemFiles, pid: int) -> set[int]:
    """The processes that this one has started, and those that they have; empty where the kernel does not list
    them (CONFIG_PROC_CHILDREN). Source: proc_tid_children(5)"""
    found: set[int] = set()
    left = [pid]
    while left:
        parent = left.pop()
        for thread in tree.names(f"/proc/{parent}/task"):
            for child in (tree.text(f"/proc/{parent}/task/{thread}/children") or "").split():
                if child.isdigit() and int(child) not in found:
                    found.add(int(child))
                    left.append(int(child))
    return found


def _process_s(tree: SystemFiles, pid: int) -> float:
    """CPU seconds of one process; 0 when it has ended."""
    fields = (tree.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    # utime and stime are the 14th and 15th field of the file; the name in parentheses is the second.
    if len(fields) < 13 or not (fields[11].isdigit() and fields[12].isdigit()):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def cores_taken(before: CpuTimes, after: CpuTimes, wall_s: float) -> float:
    """How many cores others used between two readings `wall_s` seconds apart, on average."""
    own_s = sum(
        max(0.0, after_s - before.own_s.get(pid, 0.0)) for pid, after_s in after.own_s.items()
    )
    return max(0.0, after.busy_s - before.busy_s - own_s) / max(wall_s, 1e-3)


def read_pressure(tree: SystemFiles) -> float | None:
    """The share of the last ten seconds, 0 to 100, in which some task waited for a core; None: unknown.

    Source: https://docs.kernel.org/accounting/psi.html
    """
    for line in tree.lines("/proc/pressure/cpu"):
        kind, *fields = line.split()
        if kind == "some":
            for field in fields:
                name, _, value = field.partition("=")
                if name == "avg10":
                    try:
                        return float(value)
                    except ValueError:
                        return None
    return None
