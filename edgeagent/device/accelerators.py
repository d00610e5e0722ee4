"""Accelerators: which ones exist, and which llama.cpp backend could use them if it were compiled in.

An accelerator in this list may still be unused: a build without the backend runs on the processor.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

import msgspec

from edgeagent.device.system_files import SystemFiles

Backend = Literal["cuda", "vulkan"]

_DRM = "/sys/class/drm"
# Render-node drivers with a Vulkan implementation in Mesa or from the vendor.
_VULKAN_DRIVERS = frozenset(
    {"i915", "xe", "amdgpu", "radeon", "nouveau", "v3d", "panfrost", "panthor", "msm", "msm_dpu"}
)
_NPU_DRIVERS = frozenset({"RKNPU", "rknpu", "rocket"})


class Accelerator(msgspec.Struct, frozen=True):
    """`kind`: gpu or npu. `driver` is the kernel's. `backend` None: llama.cpp has none for it.

    `is_memory_shared`: its memory is part of the RAM; None: unknown.
    """

    name: str
    kind: Literal["gpu", "npu"]
    driver: str | None = None
    backend: Backend | None = None
    node: str | None = None
    is_memory_shared: bool | None = None


def read_accelerators(tree: SystemFiles, compatible: tuple[str, ...]) -> tuple[Accelerator, ...]:
    """GPUs and neural processors, from device nodes and drivers; `compatible` is the board's."""
    found = [*_nvidia(tree, compatible), *_render_nodes(tree), *_neural(tree)]
    return tuple(found)


def _nvidia(tree: SystemFiles, compatible: tuple[str, ...]) -> list[Accelerator]:
    if any(entry.startswith("nvidia,tegra") for entry in compatible):
        for node in ("/dev/nvhost-gpu", "/dev/nvgpu/igpu0/ctrl", "/dev/nvmap"):
            if tree.exists(node):
                return [Accelerator("NVIDIA Tegra GPU", "gpu", "nvgpu", "cuda", node, True)]
        return []
    names = tree.names("/dev", "nvidia[0-9]*")
    return [
        Accelerator(f"NVIDIA GPU {name[6:]}", "gpu", "nvidia", "cuda", f"/dev/{name}", False)
        for name in names
        if name[6:].isdecimal()
    ]


def _render_nodes(tree: SystemFiles) -> list[Accelerator]:
    """DRM render nodes. NVIDIA's own driver is reported by its /dev nodes instead."""
    found = []
    for name in tree.names(_DRM, "renderD*"):
        driver = _driver(tree, f"{_DRM}/{name}/device")
        node = f"/dev/dri/{name}"
        if driver is None or driver.startswith(("nvidia", "tegra", "host1x")):
            continue
        if driver in _NPU_DRIVERS:
            found.append(Accelerator("Rockchip NPU", "npu", driver, None, node, True))
            continue
        backend: Backend | None = "vulkan" if driver in _VULKAN_DRIVERS else None
        # i915 and xe also drive cards with dedicated memory; boot_vga does not distinguish them.
        is_shared = True if driver in ("v3d", "panfrost", "panthor", "msm") else None
        found.append(Accelerator(f"{driver} GPU", "gpu", driver, backend, node, is_shared))
    return found


def _neural(tree: SystemFiles) -> list[Accelerator]:
    """Neural processors, which llama.cpp does not use."""
    found = []
    for name in tree.names("/dev", "hailo[0-9]*"):
        found.append(Accelerator("Hailo", "npu", "hailo", None, f"/dev/{name}", False))
    for name in tree.names("/sys/class/accel", "accel[0-9]*"):
        driver = _driver(tree, f"/sys/class/accel/{name}/device")
        label = "Rockchip NPU" if driver in _NPU_DRIVERS else f"{driver or 'unknown'} NPU"
        found.append(Accelerator(label, "npu", driver, None, f"/dev/accel/{name}"))
    return found


def _driver(tree: SystemFiles, device: str) -> str | None:
    target = tree.link_target(f"{device}/driver")
    return PurePosixPath(target).name if target else None
