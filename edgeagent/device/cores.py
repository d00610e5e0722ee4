"""Cores: how many there are, of which kind, and how many this process may use."""

from __future__ import annotations

import math
import os

import msgspec

from edgeagent.device.cgroup import CgroupLimits
from edgeagent.device.cpu import EFFICIENCY_PARTS, CpuInfoEntry
from edgeagent.device.system_files import SystemFiles, parse_cpulist, parse_fields
from edgeagent.worker.loop_core import loop_core

_BASE = "/sys/devices/system/cpu"

# A core below this share of the fastest core's value counts as an efficiency core. The value is
# between an A55 beside an A76 (0.52 of its capacity on an RK3588) and the middle cores of
# three-cluster chips (0.7 and up); favoured cores of one kind differ by only a few percent.
_CAPACITY_SHARE = 0.6
_FREQUENCY_SHARE = 0.8

# The CPUs of each hybrid PMU. Source: tools/perf/Documentation/intel-hybrid.txt
_HYBRID = ("/sys/devices", "/sys/bus/event_source/devices")


class Cores(msgspec.Struct, frozen=True):
    """CPU numbers are the kernel's; counts of cores are physical cores unless they say CPUs.

    `usable_cpus`: online, in our affinity mask and in our cpuset. `cpu_quota_cores`: share of time by
    control group, 1.5 for one and a half cores. `n_cores_usable`: the smaller of usable CPUs and quota,
    fractional if the quota is. `n_threads_max`: whole threads that can run without being stopped by the
    quota in every period (1.5 gives 1: two threads would both be stopped for the last quarter of each 100
    ms), never below 1. `split_by`: how the kinds of cores were distinguished; None: all cores are alike.
    """

    performance_cpus: tuple[int, ...] = ()
    efficiency_cpus: tuple[int, ...] = ()
    usable_cpus: tuple[int, ...] = ()
    n_cpus_online: int = 0
    n_physical: int = 0
    n_physical_usable: int = 0
    n_performance_usable: int = 0
    has_smt: bool = False
    cpu_quota_cores: float | None = None
    n_cores_usable: float = 1.0
    n_threads_max: int = 1
    max_mhz: int | None = None
    split_by: str | None = None


def read_cores(tree: SystemFiles, processors: list[CpuInfoEntry], limits: CgroupLimits) -> Cores:
    """The cores of the machine, and those that this process may use."""
    online = _online(tree, processors)
    usable = _usable(tree, online, limits)
    siblings = {cpu: _siblings(tree, cpu) for cpu in online}
    performance, split_by = _performance(tree, online, processors)
    quota = limits.cpu_quota_cores
    n_usable = min(float(len(usable)), quota or math.inf) or 1.0
    frequencies = [_frequency(tree, cpu) or 0 for cpu in online]
    return Cores(
        performance_cpus=tuple(sorted(performance)),
        efficiency_cpus=tuple(sorted(online - performance)),
        usable_cpus=tuple(sorted(usable)),
        n_cpus_online=len(online),
        n_physical=_count(online, siblings),
        n_physical_usable=_count(usable, siblings),
        n_performance_usable=_count(usable & performance, siblings),
        has_smt=any(len(group & online) > 1 for group in siblings.values()),
        cpu_quota_cores=quota,
        n_cores_usable=n_usable,
        n_threads_max=max(1, math.floor(n_usable)),
        max_mhz=max(frequencies, default=0) // 1000 or None,
        split_by=split_by,
    )


def _online(tree: SystemFiles, processors: list[CpuInfoEntry]) -> frozenset[int]:
    online = parse_cpulist(tree.text(f"{_BASE}/online"))
    online = online or frozenset(processor.cpu for processor in processors)
    if not online:
        tree.note("number of cores unknown: neither /sys nor /proc/cpuinfo lists CPUs")
    return online


def _usable(tree: SystemFiles, online: frozenset[int], limits: CgroupLimits) -> frozenset[int]:
    status = parse_fields(tree.lines("/proc/self/status"))
    allowed = parse_cpulist(status.get("Cpus_allowed_list"))
    if tree.is_live and hasattr(os, "sched_getaffinity"):
        allowed = loop_core.allowed()
    usable = online
    for mask in (allowed, limits.cpus):
        # An empty intersection means that the two sources use different numbers: ignore the mask.
        usable = (usable & mask) or usable if mask else usable
    return usable


def _siblings(tree: SystemFiles, cpu: int) -> frozenset[int]:
    """The CPUs on the same core, including this one."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        group = parse_cpulist(tree.text(f"{_BASE}/cpu{cpu}/topology/{name}"))
        if group:
            return group
    return frozenset({cpu})


def _count(cpus: frozenset[int], siblings: dict[int, frozenset[int]]) -> int:
    return len({siblings[cpu] for cpu in cpus})


def _performance(
    tree: SystemFiles, online: frozenset[int], processors: list[CpuInfoEntry]
) -> tuple[frozenset[int], str | None]:
    """The performance cores, and how they were distinguished (None: all cores are alike).

    1. Intel's hybrid PMUs list their CPUs
    2. cpu_capacity, the scheduler's own view
    3. ARM part ids, if one design is a known efficiency core
    4. maximum frequency, the weakest sign
    """
    for base in _HYBRID:
        big = parse_cpulist(tree.text(f"{base}/cpu_core/cpus"))
        if big and big & online and not online <= big:
            return big & online, "hybrid_pmu"
    capacity = {cpu: tree.number(f"{_BASE}/cpu{cpu}/cpu_capacity") for cpu in online}
    strong = _above(capacity, _CAPACITY_SHARE)
    if strong is not None and strong != online:
        return strong, "cpu_capacity"
    little = {p.cpu for p in processors if p.part in EFFICIENCY_PARTS}
    if little & online and not online <= little:
        return online - little, "part_id"
    frequency = {cpu: _frequency(tree, cpu) for cpu in online}
    strong = _above(frequency, _FREQUENCY_SHARE)
    if strong is not None and strong != online:
        return strong, "max_frequency"
    return online, None


def _above(figures: dict[int, int | None], share: float) -> frozenset[int] | None:
    """CPUs at or above `share` of the largest value; None if a value is missing."""
    known = {cpu: value for cpu, value in figures.items() if value}
    if not known or len(known) < len(figures):
        return None
    bound = share * max(known.values())
    return frozenset(cpu for cpu, value in known.items() if value >= bound)


def _frequency(tree: SystemFiles, cpu: int) -> int | None:
    """The maximum frequency in kHz that the hardware allows, regardless of current settings."""
    return tree.number(f"{_BASE}/cpu{cpu}/cpufreq/cpuinfo_max_freq")
