from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.cgroup import CgroupLimits, read_limits, read_mounts
from edgeagent.device.memory import Memory, read_memory
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write

GIB = 1 << 30


def memory_of(root: Path) -> Memory:
    tree = SystemFiles(root)
    return read_memory(tree, read_limits(tree, read_mounts(tree)))


def test_a_machine_without_limits_has_what_the_kernel_says(tree_of: Callable[[str], Path]) -> None:
    memory = memory_of(tree_of("pi4"))
    assert memory.total_bytes == memory.usable_bytes == 3_885_396 * 1024
    assert memory.available_bytes == 3_417_180 * 1024
    assert memory.limit_bytes is None


def test_a_container_has_its_limit_and_not_the_host(tree_of: Callable[[str], Path]) -> None:
    memory = memory_of(tree_of("container-v2"))
    assert memory.usable_bytes == memory.limit_bytes == GIB
    assert memory.available_bytes == GIB - (157_286_400 - 52_428_800)
    assert memory.is_swap_forbidden


def test_a_limit_above_our_mount_is_found_in_the_hierarchical_one(
    tree_of: Callable[[str], Path],
) -> None:
    memory = memory_of(tree_of("container-v1"))
    assert memory.usable_bytes == 2 * GIB
    assert memory.available_bytes == 2 * GIB - (314_572_800 - 104_857_600)


def test_a_limit_beyond_the_machine_does_not_bind(tmp_path: Path) -> None:
    write(tmp_path, "/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB")
    memory = read_memory(SystemFiles(tmp_path), CgroupLimits(memory_limit_bytes=2 * GIB))
    assert (memory.limit_bytes, memory.usable_bytes) == (None, GIB)


def test_what_a_waiting_worker_has_taken_is_available_to_its_model(tmp_path: Path) -> None:
    write(tmp_path, "/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB")
    write(tmp_path, "/proc/7/status", "Name:\tpython3\nVmRSS:\t43276 kB\nRssAnon:\t23780 kB")
    tree = SystemFiles(tmp_path)

    def available(pid: int | None, free: int | None = None) -> int | None:
        return read_memory(tree, CgroupLimits(memory_free_bytes=free), pid).available_bytes

    assert available(None) == available(8) == 524_288 * 1024
    assert available(7) == (524_288 + 23_780) * 1024
    assert available(7, free=100 << 20) == (100 << 20) + 23_780 * 1024
    assert available(7, free=0) == 23_780 * 1024


@pytest.mark.parametrize(
    ("name", "disk_kb", "zram_kb"),
    [("pi4", 102_396, 0), ("pi5", 0, 524_272), ("jetson-orin-nano", 0, 6 * 650_180)],
)
def test_swap_is_told_apart_and_never_added_to_ram(
    tree_of: Callable[[str], Path], name: str, disk_kb: int, zram_kb: int
) -> None:
    memory = memory_of(tree_of(name))
    assert memory.swap_disk_bytes == disk_kb * 1024
    assert memory.swap_zram_bytes == zram_kb * 1024
    assert memory.usable_bytes == memory.total_bytes


def test_zram_is_noted_as_no_extra_ram(tree_of: Callable[[str], Path]) -> None:
    tree = SystemFiles(tree_of("pi5"))
    read_memory(tree, CgroupLimits())
    assert any("zram" in note for note in tree.notes)


@pytest.mark.parametrize(("name", "page"), [("pi5", 16_384), ("pi4", 4096)])
def test_the_page_size_comes_from_the_auxiliary_vector(
    tree_of: Callable[[str], Path], name: str, page: int
) -> None:
    assert memory_of(tree_of(name)).page_bytes == page


def test_no_meminfo_is_unknown_ram_and_a_note(tmp_path: Path) -> None:
    tree = SystemFiles(tmp_path)
    assert read_memory(tree, CgroupLimits()) == Memory()
    assert any("MemTotal" in note for note in tree.notes)
