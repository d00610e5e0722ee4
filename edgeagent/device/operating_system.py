"""The system software: kernel, libc, distribution, and whether we are in a container or a VM."""

from __future__ import annotations

import os
import re
import struct

import msgspec

from edgeagent.device.board import Board
from edgeagent.device.cgroup import Mount
from edgeagent.device.cpu import Cpu
from edgeagent.device.system_files import SystemFiles, parse_fields

_CGROUP_MARKS = (
    ("kubepods", "kubernetes"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
)
# DMI names of hypervisors. Source: the vendors' defaults, as systemd-detect-virt(1) lists them.
_VM_MARKS = (
    ("qemu", "qemu"),
    ("vmware", "vmware"),
    ("virtualbox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("xen", "xen"),
    ("bochs", "bochs"),
    ("parallels", "parallels"),
    ("virtual machine", "hyper-v"),
    ("amazon ec2", "ec2"),
    ("google compute engine", "gce"),
    ("linux,dummy-virt", "qemu"),
)


class System(msgspec.Struct, frozen=True):
    """`architecture` as the kernel names it: x86_64, aarch64, armv7l. `libc`: "glibc 2.36".

    `container` and `vm` name what was recognised; None: no sign of one was found.
    """

    architecture: str | None = None
    kernel: str | None = None
    libc: str | None = None
    os_name: str | None = None
    container: str | None = None
    vm: str | None = None


def read_system(tree: SystemFiles, board: Board, cpu: Cpu, mounts: list[Mount]) -> System:
    """Everything from files, except the C library's version and the pointer width of a live system."""
    release = parse_fields(tree.lines("/etc/os-release"), separator="=")
    if tree.is_live and struct.calcsize("P") == 4:
        tree.note("32-bit Python: one process can use 3 GiB at most, and no 64-bit SIMD kernels")
    return System(
        architecture=_architecture(tree, cpu),
        kernel=tree.text("/proc/sys/kernel/osrelease"),
        libc=_libc(tree),
        os_name=release.get("PRETTY_NAME", "").strip("\"'") or None,
        container=_container(tree, mounts),
        vm=_vm(tree, board, cpu),
    )


def _architecture(tree: SystemFiles, cpu: Cpu) -> str | None:
    named = tree.text("/proc/sys/kernel/arch")  # since Linux 6.1
    if named is None and tree.is_live:
        named = os.uname().machine
    if named is None:
        # Before 6.1, use the instruction sets of a recorded tree.
        has_arm, has_x86 = "neon" in cpu.features, "sse4_2" in cpu.features
        named = "aarch64" if has_arm else "x86_64" if has_x86 else None
    return named


def _libc(tree: SystemFiles) -> str | None:
    if tree.is_live:
        try:
            return os.confstr("CS_GNU_LIBC_VERSION")
        except (OSError, ValueError):
            pass  # musl does not know the name
    if tree.names("/lib", "ld-musl-*"):
        return "musl"
    return "glibc" if tree.names("/lib", "*/libc.so.6") else None


def _container(tree: SystemFiles, mounts: list[Mount]) -> str | None:
    named = tree.text("/run/systemd/container")
    if named:
        return named
    if tree.exists("/run/.containerenv"):
        return "podman"
    if tree.exists("/.dockerenv"):
        return "docker"
    groups = tree.text("/proc/self/cgroup") or ""
    for mark, name in _CGROUP_MARKS:
        if re.search(rf"[/:.-]{mark}", groups):
            return name
    is_overlay = any(mount.point == "/" and mount.kind == "overlay" for mount in mounts)
    # A live CD and an SD card with a read-only root use an overlay too, but mount /boot.
    return (
        "unknown" if is_overlay and not any(m.point.startswith("/boot") for m in mounts) else None
    )


def _vm(tree: SystemFiles, board: Board, cpu: Cpu) -> str | None:
    if "microsoft" in (tree.text("/proc/sys/kernel/osrelease") or "").lower():
        return "wsl"
    for mark, name in _VM_MARKS:
        if mark in board.search_text:
            return name
    named = tree.text("/sys/hypervisor/type")
    return named or ("unknown" if cpu.has_hypervisor_flag else None)
