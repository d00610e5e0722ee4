"""The control groups of this process: their limits on memory and processors.

A limit on any ancestor applies, so every file is read along the whole path from the process's own group up
to the top of what is mounted.

Source: cgroups(7); https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec

from edgeagent.device.system_files import SystemFiles, parse_cpulist, parse_int

# Version 1 writes "no limit" as the largest page-aligned long, which differs by page size.
_UNLIMITED_BYTES = 1 << 60
_OCTAL = re.compile(r"\\([0-7]{3})")


class CgroupHierarchy(msgspec.Struct, frozen=True):
    """One mounted hierarchy: its folders from our own group (first) to the mounted top (last)."""

    version: int
    folders: tuple[str, ...]


class CgroupLimits(msgspec.Struct, frozen=True):
    """The limits of the control groups; None if there is none.

    `memory_limit_bytes` is the smallest of the hard limits and, in version 2, of `memory.high`, above
    which the kernel stalls the group until it has freed memory. `memory_free_bytes` is the room left below
    it, counting inactive file pages as free because they are reclaimed before anything is killed.
    `cpu_quota_cores` is quota over period: 1.5 is one and a half cores.
    """

    version: int | None = None
    memory_limit_bytes: int | None = None
    memory_free_bytes: int | None = None
    is_swap_forbidden: bool = False
    cpu_quota_cores: float | None = None
    cpus: frozenset[int] | None = None


class Mount(msgspec.Struct, frozen=True):
    """One line of /proc/self/mountinfo. `root` is the part of the filesystem that is mounted.

    `options` are the filesystem's own; a read-only mount point may be on a writable filesystem.
    """

    device: str
    root: str
    point: str
    kind: str
    source: str
    options: str
    is_read_only: bool


def read_mounts(tree: SystemFiles) -> list[Mount]:
    """The mounts of this process, in mount order. Source: proc_pid_mountinfo(5)."""
    mounts = []
    for line in tree.lines("/proc/self/mountinfo"):
        before, found, after = line.partition(" - ")
        left, right = before.split(), after.split(" ", 2)
        if not found or len(left) < 6 or len(right) < 2:
            continue
        options = right[2] if len(right) == 3 else ""
        mounts.append(
            Mount(
                device=left[2],
                root=_unescape(left[3]),
                point=_unescape(left[4]),
                kind=right[0],
                source=_unescape(right[1]),
                options=options,
                is_read_only="ro" in left[5].split(",") or "ro" in options.split(","),
            )
        )
    return mounts


def read_limits(tree: SystemFiles, mounts: list[Mount]) -> CgroupLimits:
    """The limits of this process's control groups, version 1, 2 or the hybrid of both."""
    memory = find_hierarchy(tree, mounts, "memory")
    cpu = find_hierarchy(tree, mounts, "cpu")
    cpuset = find_hierarchy(tree, mounts, "cpuset")
    limit, free = _memory(tree, memory)
    return CgroupLimits(
        version=memory.version if memory else cpu.version if cpu else None,
        memory_limit_bytes=limit,
        memory_free_bytes=free,
        is_swap_forbidden=_is_swap_forbidden(tree, memory),
        cpu_quota_cores=_quota(tree, cpu),
        cpus=_cpus(tree, cpuset),
    )


def find_hierarchy(
    tree: SystemFiles, mounts: list[Mount], controller: str
) -> CgroupHierarchy | None:
    """The hierarchy with `controller` for this process; version 1 takes precedence, because a controller
    bound to a version 1 hierarchy is missing from version 2."""
    groups: dict[str, str] = {}
    for line in tree.lines("/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            groups[name] = path
    for mount in mounts:
        if mount.kind == "cgroup" and controller in mount.options.split(","):
            return CgroupHierarchy(1, _folders(mount, groups.get(controller, "/")))
    for mount in mounts:
        if mount.kind == "cgroup2":
            return CgroupHierarchy(2, _folders(mount, groups.get("", "/")))
    return None


def _folders(mount: Mount, group: str) -> tuple[str, ...]:
    """From our own group up to the mount point.

    In a container without its own cgroup namespace, the group is named from the host's root
    while only its own part is mounted (`mount.root`); with a namespace both are "/".
    """
    path, top = PurePosixPath(group), PurePosixPath(mount.root)
    inside = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
    # "/../.." names a group outside our namespace, which is not visible below the mount.
    parts = () if ".." in inside.parts else inside.parts
    folders = [mount.point.rstrip("/")]
    for part in parts:
        folders.append(f"{folders[-1]}/{part}")
    return tuple(reversed(folders))


def _memory(tree: SystemFiles, hierarchy: CgroupHierarchy | None) -> tuple[int | None, int | None]:
    if hierarchy is None:
        return None, None
    read = _memory_level_v1 if hierarchy.version == 1 else _memory_level_v2
    limits: list[int] = []
    frees: list[int] = []
    for folder in hierarchy.folders:
        for limit, used in read(tree, folder):
            if 0 <= limit < _UNLIMITED_BYTES:
                limits.append(limit)
                frees.append(max(0, limit - used))
    return min(limits, default=None), min(frees, default=None)


def _memory_level_v2(tree: SystemFiles, folder: str) -> list[tuple[int, int]]:
    stat = _stat(tree, f"{folder}/memory.stat")
    used = (tree.number(f"{folder}/memory.current") or 0) - stat.get("inactive_file", 0)
    names = ("memory.max", "memory.high")  # "max" is not a number and reads as None
    found = [tree.number(f"{folder}/{name}") for name in names]
    return [(limit, max(0, used)) for limit in found if limit is not None]


def _memory_level_v1(tree: SystemFiles, folder: str) -> list[tuple[int, int]]:
    stat = _stat(tree, f"{folder}/memory.stat")
    used = tree.number(f"{folder}/memory.usage_in_bytes") or 0
    used = max(0, used - stat.get("total_inactive_file", 0))
    limit = tree.number(f"{folder}/memory.limit_in_bytes")
    # The hierarchical limit includes ancestors that are not mounted into a container.
    found = [limit, stat.get("hierarchical_memory_limit")]
    return [(limit, used) for limit in found if limit is not None]


def _stat(tree: SystemFiles, name: str) -> dict[str, int]:
    stat = {}
    for line in tree.lines(name):
        key, _, text = line.partition(" ")
        value = parse_int(text)
        if value is not None:
            stat[key] = value
    return stat


def _is_swap_forbidden(tree: SystemFiles, hierarchy: CgroupHierarchy | None) -> bool:
    if hierarchy is None or hierarchy.version == 1:
        return False
    return any(tree.number(f"{folder}/memory.swap.max") == 0 for folder in hierarchy.folders)


def _quota(tree: SystemFiles, hierarchy: CgroupHierarchy | None) -> float | None:
    if hierarchy is None:
        return None
    quotas = []
    for folder in hierarchy.folders:
        if hierarchy.version == 1:
            quota = tree.number(f"{folder}/cpu.cfs_quota_us")  # -1: no limit
            period = tree.number(f"{folder}/cpu.cfs_period_us")
        else:
            words = (tree.text(f"{folder}/cpu.max") or "").split()  # "max 100000": no limit
            quota, period = (parse_int(word) for word in (*words, "", "")[:2])
        if quota and period and quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _cpus(tree: SystemFiles, hierarchy: CgroupHierarchy | None) -> frozenset[int] | None:
    """The effective set of our own group, which already excludes what its ancestors exclude."""
    if hierarchy is None:
        return None
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        cpus = parse_cpulist(tree.text(f"{hierarchy.folders[0]}/{name}"))
        if cpus:
            return cpus
    return None


def _unescape(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
