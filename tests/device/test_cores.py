from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.cgroup import CgroupLimits
from edgeagent.device.cores import Cores, read_cores
from edgeagent.device.cpu import read_cpu, read_processors
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write

CPU = "/sys/devices/system/cpu"


def cores_of(root: Path, limits: CgroupLimits | None = None) -> Cores:
    tree = SystemFiles(root)
    return read_cores(tree, read_processors(tree), limits or CgroupLimits())


@pytest.mark.parametrize(
    ("name", "performance", "n_physical", "split_by"),
    [
        ("pi4", (0, 1, 2, 3), 4, None),
        ("rk3588", (4, 5, 6, 7), 8, "cpu_capacity"),
        ("laptop-hybrid", tuple(range(8)), 12, "hybrid_pmu"),
        ("n100", (0, 1, 2, 3), 4, None),
        ("jetson-orin-nano", tuple(range(6)), 6, None),
    ],
)
def test_kinds_of_cores_are_told_apart(
    tree_of: Callable[[str], Path],
    name: str,
    performance: tuple[int, ...],
    n_physical: int,
    split_by: str | None,
) -> None:
    cores = cores_of(tree_of(name))
    assert cores.performance_cpus == performance
    assert (cores.n_physical, cores.split_by) == (n_physical, split_by)


def test_without_capacities_the_part_ids_tell_big_from_little(
    own_tree_of: Callable[[str], Path],
) -> None:
    root = own_tree_of("rk3588")
    for cpu in range(8):
        (root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity").unlink()
    cores = cores_of(root)
    assert (cores.performance_cpus, cores.split_by) == ((4, 5, 6, 7), "part_id")


def test_without_pmus_the_frequencies_tell_them_apart(own_tree_of: Callable[[str], Path]) -> None:
    root = own_tree_of("laptop-hybrid")
    (root / "sys/devices/cpu_core/cpus").unlink()
    cores = cores_of(root)
    assert (cores.performance_cpus, cores.split_by) == (tuple(range(8)), "max_frequency")


def test_favoured_cores_a_few_percent_faster_are_of_the_same_kind(tmp_path: Path) -> None:
    write(tmp_path, f"{CPU}/online", "0-1")
    for cpu, frequency in enumerate((5_100_000, 5_500_000)):
        write(tmp_path, f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", str(frequency))
    assert cores_of(tmp_path).split_by is None


def test_threads_of_one_core_count_once(tree_of: Callable[[str], Path]) -> None:
    cores = cores_of(tree_of("laptop-hybrid"))
    assert cores.has_smt
    assert cores.n_performance_usable == 4
    assert cores.n_threads_max == 16


@pytest.mark.parametrize(
    ("quota", "n_usable", "n_threads"),
    [(None, 4.0, 4), (1.5, 1.5, 1), (0.25, 0.25, 1), (2.0, 2.0, 2), (16.0, 4.0, 4)],
)
def test_a_fractional_quota_stays_a_fraction_and_threads_are_whole(
    tree_of: Callable[[str], Path], quota: float | None, n_usable: float, n_threads: int
) -> None:
    cores = cores_of(tree_of("pi5"), CgroupLimits(cpu_quota_cores=quota))
    assert (cores.n_cores_usable, cores.n_threads_max) == (n_usable, n_threads)


def test_affinity_and_cpuset_both_take_cores_away(own_tree_of: Callable[[str], Path]) -> None:
    root = own_tree_of("rk3588")
    write(root, "/proc/self/status", "Name:\tx\nCpus_allowed_list:\t2-5")
    cores = cores_of(root, CgroupLimits(cpus=frozenset(range(4, 8))))
    assert cores.usable_cpus == (4, 5)
    assert (cores.n_performance_usable, cores.n_threads_max) == (2, 2)


def test_a_mask_that_shares_no_cpu_is_ignored(tree_of: Callable[[str], Path]) -> None:
    cores = cores_of(tree_of("pi5"), CgroupLimits(cpus=frozenset({40, 41})))
    assert cores.n_threads_max == 4


def test_an_empty_tree_still_allows_one_thread(tmp_path: Path) -> None:
    cores = cores_of(tmp_path)
    assert (cores.n_threads_max, cores.n_cpus_online) == (1, 0)


@pytest.mark.parametrize(
    ("name", "model", "has", "lacks"),
    [
        ("pi4", "4x Cortex-A72", {"neon"}, {"dotprod", "fp16"}),
        ("pi5", "4x Cortex-A76", {"neon", "dotprod", "fp16"}, {"i8mm", "bf16", "sve"}),
        ("rk3588", "4x Cortex-A76 + 4x Cortex-A55", {"dotprod"}, {"i8mm"}),
        ("jetson-orin-nano", "6x Cortex-A78AE", {"dotprod"}, {"sve2"}),
        ("n100", "Intel(R) N100", {"avx2", "fma", "f16c", "avx_vnni"}, {"avx512f"}),
        ("container-v2", "AMD EPYC 9354P 32-Core Processor", {"avx512_vnni", "avx512_bf16"}, set()),
    ],
)
def test_processors_are_named_with_what_they_can_do(
    tree_of: Callable[[str], Path], name: str, model: str, has: set[str], lacks: set[str]
) -> None:
    tree = SystemFiles(tree_of(name))
    cpu = read_cpu(tree, read_processors(tree))
    assert cpu.model == model
    assert has <= set(cpu.features)
    assert not lacks & set(cpu.features)


def test_only_features_of_every_core_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        "/proc/cpuinfo",
        "processor : 0\nflags : avx2 avx512f\n\nprocessor : 1\nflags : avx2\n\nprocessor : x\n",
    )
    tree = SystemFiles(tmp_path)
    assert read_cpu(tree, read_processors(tree)).features == ("avx2",)


def test_an_unknown_arm_design_is_given_by_its_numbers(tmp_path: Path) -> None:
    text = "processor : 0\nCPU implementer : 0x99\nCPU part : 0xfff\n"
    write(tmp_path, "/proc/cpuinfo", text)
    tree = SystemFiles(tmp_path)
    assert read_cpu(tree, read_processors(tree)).model == "1x 0x99 0xfff"


def test_the_largest_cache_of_the_first_cpu_is_the_last_level(
    tree_of: Callable[[str], Path],
) -> None:
    tree = SystemFiles(tree_of("pi5"))
    assert read_cpu(tree, read_processors(tree)).llc_bytes == 2 * 1024 * 1024
