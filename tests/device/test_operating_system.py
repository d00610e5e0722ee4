from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.accelerators import read_accelerators
from edgeagent.device.board import read_board
from edgeagent.device.probe import probe
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("pi-zero-2w", "Raspberry Pi Zero 2 W Rev 1.0"),
        ("laptop-hybrid", "LENOVO 21CB0012GE"),
        ("rk3588", "Radxa ROCK 5B"),
    ],
)
def test_a_board_is_called_what_its_firmware_calls_it(
    tree_of: Callable[[str], Path], name: str, label: str
) -> None:
    assert read_board(SystemFiles(tree_of(name))).label == label


def test_a_form_nobody_filled_in_is_no_name(tmp_path: Path) -> None:
    write(tmp_path, "/sys/class/dmi/id/sys_vendor", "To be filled by O.E.M.")
    write(tmp_path, "/sys/class/dmi/id/product_name", "Default string")
    tree = SystemFiles(tmp_path)
    assert read_board(tree).label is None
    assert tree.notes


@pytest.mark.parametrize(
    ("name", "backends"),
    [
        ("pi5", {"v3d GPU": "vulkan", "Hailo": None}),
        ("jetson-orin-nano", {"NVIDIA Tegra GPU": "cuda"}),
        ("rk3588", {"panthor GPU": "vulkan", "Rockchip NPU": None}),
        ("laptop-hybrid", {"i915 GPU": "vulkan"}),
        ("pi-zero-2w", {}),
    ],
)
def test_accelerators_are_listed_with_the_backend_that_could_drive_them(
    tree_of: Callable[[str], Path], name: str, backends: dict[str, str | None]
) -> None:
    found = probe(tree_of(name)).accelerators
    assert {accelerator.name: accelerator.backend for accelerator in found} == backends


def test_a_desktop_card_is_found_by_its_node_and_not_by_the_control_node(tmp_path: Path) -> None:
    for node in ("nvidia0", "nvidia1", "nvidiactl", "nvidia0x"):
        write(tmp_path, f"/dev/{node}", "")
    found = read_accelerators(SystemFiles(tmp_path), ())
    assert [accelerator.node for accelerator in found] == ["/dev/nvidia0", "/dev/nvidia1"]


@pytest.mark.parametrize(
    ("files", "container", "vm"),
    [
        ({}, None, None),
        ({"/.dockerenv": ""}, "docker", None),
        ({"/run/.containerenv": "engine=podman"}, "podman", None),
        ({"/run/systemd/container": "systemd-nspawn"}, "systemd-nspawn", None),
        ({"/proc/self/cgroup": "0::/lxc.payload.web"}, "lxc", None),
        ({"/proc/self/cgroup": "0::/system.slice/edgeagent.service"}, None, None),
        ({"/proc/self/mountinfo": "1 0 0:5 / / rw - overlay overlay rw"}, "unknown", None),
        ({"/sys/class/dmi/id/sys_vendor": "QEMU"}, None, "qemu"),
        ({"/proc/sys/kernel/osrelease": "5.15.0-microsoft-standard-WSL2"}, None, "wsl"),
        ({"/proc/cpuinfo": "processor : 0\nflags : fpu hypervisor"}, None, "unknown"),
        ({"/sys/hypervisor/type": "xen"}, None, "xen"),
    ],
)
def test_containers_and_virtual_machines_leave_signs(
    tmp_path: Path, files: dict[str, str], container: str | None, vm: str | None
) -> None:
    for name, content in files.items():
        write(tmp_path, name, content)
    system = probe(tmp_path).system
    assert (system.container, system.vm) == (container, vm)


def test_a_read_only_root_below_an_overlay_is_no_container(tmp_path: Path) -> None:
    lines = "1 0 0:5 / / rw - overlay overlay rw\n2 1 179:1 / /boot ro - vfat /dev/mmcblk0p1 ro"
    write(tmp_path, "/proc/self/mountinfo", lines)
    assert probe(tmp_path).system.container is None


def test_an_old_kernel_tells_its_architecture_by_its_instructions(
    tree_of: Callable[[str], Path],
) -> None:
    assert probe(tree_of("jetson-orin-nano")).system.architecture == "aarch64"
    assert probe(tree_of("container-v1")).system.architecture == "x86_64"


@pytest.mark.parametrize(("name", "libc"), [("container-v1", "musl"), ("pi5", "glibc")])
def test_the_c_library_is_found_in_the_tree(
    tree_of: Callable[[str], Path], name: str, libc: str
) -> None:
    assert probe(tree_of(name)).system.libc == libc
