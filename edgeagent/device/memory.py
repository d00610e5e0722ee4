"""Memory: what there is, what our control groups leave of it, and why swap does not count."""

from __future__ import annotations

import os
import struct

import msgspec

from edgeagent.device.cgroup import CgroupLimits
from edgeagent.device.system_files import SystemFiles, parse_fields, parse_int

_AT_PAGESZ = 6


class Memory(msgspec.Struct, frozen=True):
    """Sizes in bytes; None where the kernel did not say.

    `total_bytes` is MemTotal: installed RAM less what firmware and kernel took at boot.
    `usable_bytes` is the lesser of it and the control-group limit; `available_bytes` is what could
    be allocated now without swapping, under the same limit.

    Swap is reported and never counted as room for a model. Decoding reads every weight for every
    token, so pages on a disk are read back once per token, and an SD card wears out meanwhile.
    zram is not extra RAM at all: its pages stay in RAM, compressed, and quantized weights and KV
    cells are close to incompressible; weights mapped from a file are dropped, never swapped.
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    limit_bytes: int | None = None
    usable_bytes: int | None = None
    swap_disk_bytes: int = 0
    swap_zram_bytes: int = 0
    is_swap_forbidden: bool = False
    page_bytes: int | None = None


def read_memory(tree: SystemFiles, limits: CgroupLimits, worker_pid: int | None = None) -> Memory:
    """Memory of the machine under the control-group limits of this process.

    What the worker `worker_pid` has taken (24 MB before it loads a model) counts as available: the need of
    the model that it will load includes it.
    """
    info = parse_fields(tree.lines("/proc/meminfo"))
    total = _kilobytes(info.get("MemTotal"))
    available = _kilobytes(info.get("MemAvailable"))
    if total is None:
        tree.note("RAM size unknown: /proc/meminfo has no MemTotal")
    limit = limits.memory_limit_bytes
    if limit is not None and total is not None and limit >= total:
        limit = None  # a limit above the machine does not bind
    disk, zram = _swap(tree)
    if zram:
        tree.note("zram swap is compressed RAM, it is not counted as room for models")
    free = _least(available, limits.memory_free_bytes)
    if free is not None and worker_pid is not None:
        status = parse_fields(tree.lines(f"/proc/{worker_pid}/status"))
        free += _kilobytes(status.get("RssAnon")) or 0
    return Memory(
        total_bytes=total,
        available_bytes=_least(free, total),
        limit_bytes=limit,
        usable_bytes=_least(total, limit),
        swap_disk_bytes=disk,
        swap_zram_bytes=zram,
        is_swap_forbidden=limits.is_swap_forbidden,
        page_bytes=_page_bytes(tree),
    )


def _kilobytes(value: str | None) -> int | None:
    """Bytes of "8245504 kB"; meminfo's kB has always been 1024."""
    number = parse_int((value or "").removesuffix("kB").strip())
    return number * 1024 if number is not None and number >= 0 else None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _swap(tree: SystemFiles) -> tuple[int, int]:
    """Bytes of swap on (disk, zram), from the table /proc/swaps."""
    disk = zram = 0
    for line in tree.lines("/proc/swaps")[1:]:
        words = line.split()
        size = _kilobytes(words[2]) if len(words) > 2 else None
        if size is None:
            continue
        if words[0].startswith("/dev/zram"):
            zram += size
        else:
            disk += size
    return disk, zram


def _page_bytes(tree: SystemFiles) -> int | None:
    """The page size: 4096 mostly, 16384 on a Raspberry Pi 5, 65536 on some servers.

    Asked of the auxiliary vector the kernel gave us, because it is a file and so is recorded in
    test trees. Source: getauxval(3), AT_PAGESZ.
    """
    vector = tree.blob("/proc/self/auxv") or b""
    pair = struct.Struct("@LL")
    for key, value in pair.iter_unpack(vector[: len(vector) // pair.size * pair.size]):
        if key == _AT_PAGESZ:
            return int(value)
    return os.sysconf("SC_PAGE_SIZE") if tree.is_live else None
