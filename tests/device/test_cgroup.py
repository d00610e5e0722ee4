from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.device.cgroup import CgroupLimits, find_hierarchy, read_limits, read_mounts
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write

GIB = 1 << 30
MOUNT_V2 = "28 21 0:25 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate"
MOUNT_V1 = "32 31 0:28 {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"


def limits_of(root: Path) -> CgroupLimits:
    tree = SystemFiles(root)
    return read_limits(tree, read_mounts(tree))


def v2(root: Path, group: str = "0::/system.slice/edge.service") -> str:
    write(root, "/proc/self/mountinfo", MOUNT_V2)
    write(root, "/proc/self/cgroup", group)
    return "/sys/fs/cgroup"


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert limits_of(tmp_path) == CgroupLimits()


@pytest.mark.parametrize("level", ["", "/system.slice", "/system.slice/edge.service"])
def test_a_limit_on_any_level_up_to_the_root_binds(tmp_path: Path, level: str) -> None:
    base = v2(tmp_path)
    for folder in ("", "/system.slice", "/system.slice/edge.service"):
        write(tmp_path, f"{base}{folder}/memory.max", "max")
        write(tmp_path, f"{base}{folder}/cpu.max", "max 100000")
    write(tmp_path, f"{base}{level}/memory.max", str(GIB))
    write(tmp_path, f"{base}{level}/memory.current", str(GIB // 4))
    write(tmp_path, f"{base}{level}/cpu.max", "250000 100000")
    limits = limits_of(tmp_path)
    assert limits.memory_limit_bytes == GIB
    assert limits.memory_free_bytes == GIB - GIB // 4
    assert limits.cpu_quota_cores == 2.5


def test_the_least_limit_and_the_least_room_may_lie_on_different_levels(tmp_path: Path) -> None:
    base = v2(tmp_path)
    write(tmp_path, f"{base}/system.slice/memory.max", str(4 * GIB))
    write(tmp_path, f"{base}/system.slice/memory.current", str(4 * GIB - 100))
    write(tmp_path, f"{base}/system.slice/edge.service/memory.max", str(GIB))
    limits = limits_of(tmp_path)
    assert (limits.memory_limit_bytes, limits.memory_free_bytes) == (GIB, 100)


def test_memory_high_binds_because_the_kernel_stalls_above_it(tmp_path: Path) -> None:
    base = v2(tmp_path)
    write(tmp_path, f"{base}/system.slice/edge.service/memory.max", str(2 * GIB))
    write(tmp_path, f"{base}/system.slice/edge.service/memory.high", str(GIB))
    assert limits_of(tmp_path).memory_limit_bytes == GIB


def test_inactive_file_pages_count_as_room(tmp_path: Path) -> None:
    base = v2(tmp_path, "0::/")
    write(tmp_path, f"{base}/memory.max", "1000")
    write(tmp_path, f"{base}/memory.current", "900")
    write(tmp_path, f"{base}/memory.stat", "anon 500\ninactive_file 300\nbroken\nalso -1")
    assert limits_of(tmp_path).memory_free_bytes == 400


def test_usage_above_the_limit_leaves_no_room_and_not_a_negative_one(tmp_path: Path) -> None:
    base = v2(tmp_path, "0::/")
    write(tmp_path, f"{base}/memory.max", "1000")
    write(tmp_path, f"{base}/memory.current", "2000")
    assert limits_of(tmp_path).memory_free_bytes == 0


def test_a_group_outside_our_namespace_reads_the_mounted_top(tmp_path: Path) -> None:
    base = v2(tmp_path, "0::/../../other")
    write(tmp_path, f"{base}/memory.max", str(GIB))
    assert limits_of(tmp_path).memory_limit_bytes == GIB


@pytest.mark.parametrize("unlimited", [9223372036854771712, 9223372036854710272, (1 << 63) - 1])
def test_version_1_writes_no_limit_as_a_number_that_differs_by_page_size(
    tmp_path: Path, unlimited: int
) -> None:
    write(tmp_path, "/proc/self/mountinfo", MOUNT_V1.format(root="/", name="memory"))
    write(tmp_path, "/proc/self/cgroup", "4:memory:/app")
    write(tmp_path, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes", str(unlimited))
    limits = limits_of(tmp_path)
    assert limits.version == 1
    assert limits.memory_limit_bytes is None


def test_version_1_reads_the_whole_path_of_a_group_on_the_host(tmp_path: Path) -> None:
    write(tmp_path, "/proc/self/mountinfo", MOUNT_V1.format(root="/", name="memory"))
    write(tmp_path, "/proc/self/cgroup", "4:memory:/a/b")
    write(tmp_path, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", str(GIB))
    write(tmp_path, "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", str(2 * GIB))
    assert limits_of(tmp_path).memory_limit_bytes == GIB


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [("-1", "100000", None), ("50000", "100000", 0.5), ("300000", "100000", 3.0), ("1", "0", None)],
)
def test_version_1_quota_is_a_share_of_time(
    tmp_path: Path, quota: str, period: str, cores: float | None
) -> None:
    write(tmp_path, "/proc/self/mountinfo", MOUNT_V1.format(root="/", name="cpu"))
    write(tmp_path, "/proc/self/cgroup", "4:cpu:/")
    write(tmp_path, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota)
    write(tmp_path, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", period)
    assert limits_of(tmp_path).cpu_quota_cores == cores


@pytest.mark.parametrize("text", ["", "max", "max 100000", "0 100000", "x y", "100000"])
def test_a_cpu_max_without_a_quota_is_no_quota(tmp_path: Path, text: str) -> None:
    base = v2(tmp_path, "0::/")
    write(tmp_path, f"{base}/cpu.max", text)
    assert limits_of(tmp_path).cpu_quota_cores is None


def test_in_the_hybrid_layout_a_controller_of_version_1_wins(tmp_path: Path) -> None:
    lines = [MOUNT_V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    lines.append(MOUNT_V1.format(root="/", name="memory"))
    write(tmp_path, "/proc/self/mountinfo", "\n".join(lines))
    write(tmp_path, "/proc/self/cgroup", "4:memory:/app\n0::/user")
    tree = SystemFiles(tmp_path)
    memory = find_hierarchy(tree, read_mounts(tree), "memory")
    cpu = find_hierarchy(tree, read_mounts(tree), "cpu")
    assert memory is not None
    assert cpu is not None
    assert (memory.version, memory.folders[0]) == (1, "/sys/fs/cgroup/memory/app")
    assert (cpu.version, cpu.folders[0]) == (2, "/sys/fs/cgroup/unified/user")


def test_a_mount_point_with_a_blank_is_unescaped(tmp_path: Path) -> None:
    write(tmp_path, "/proc/self/mountinfo", "1 0 8:1 / /my\\040disk rw - ext4 /dev/sda1 rw\njunk")
    (mount,) = read_mounts(SystemFiles(tmp_path))
    assert mount.point == "/my disk"
