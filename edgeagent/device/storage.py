"""Storage: the kind of medium that a directory is on, and its free space."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from edgeagent.device.cgroup import Mount
from edgeagent.device.system_files import SystemFiles

StorageKind = Literal[
    "sd", "emmc", "nvme", "ssd", "hdd", "usb", "virtual", "overlay", "ram", "network"
]

_RAM_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "rootfs"})
_OVERLAY_FILESYSTEMS = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs"})
_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"})
_MAX_LAYERS = 8  # dm-crypt on LVM on RAID is three


class Storage(msgspec.Struct, frozen=True):
    """The storage of `path`. `kind` None: unknown. `disk` is the kernel's name, "mmcblk0".

    "virtual" is a disk provided by a hypervisor or loop driver, whose physical medium is not visible.
    "overlay" is a container's root: its writes go to a host directory that is not visible either.
    `free_bytes` is what an unprivileged process may still write; only known on the live machine.
    """

    path: str
    kind: StorageKind | None = None
    filesystem: str | None = None
    disk: str | None = None
    free_bytes: int | None = None
    is_read_only: bool = False

    @property
    def is_flash_card(self) -> bool:
        """Whether writes should be minimized, since they wear out SD cards and eMMC."""
        return self.kind in ("sd", "emmc")


def read_storage(tree: SystemFiles, mounts: list[Mount], directory: Path | None) -> Storage:
    """The medium of `directory` (which need not exist yet); None means the root."""
    path = "/" if directory is None else os.path.abspath(directory)  # noqa: PTH100 - lexical
    if tree.is_live:
        path = os.path.realpath(path)
    elif directory is not None and Path(path).is_relative_to(tree.root):
        path = "/" + str(Path(path).relative_to(tree.root))
    mount = _mount_of(mounts, path)
    if mount is None:
        tree.note(f"storage of {path} unknown: no mount in /proc/self/mountinfo contains it")
        return Storage(path=path, free_bytes=_free_bytes(tree, path))
    disk = _disk(tree, mount)
    kind = _kind(tree, mount, disk)
    if kind is None:
        tree.note(f"storage of {path} unknown: {mount.kind} on {mount.source}")
    return Storage(
        path=path,
        kind=kind,
        filesystem=mount.kind,
        disk=PurePosixPath(disk).name if disk else None,
        free_bytes=_free_bytes(tree, path),
        is_read_only=mount.is_read_only,
    )


def _mount_of(mounts: list[Mount], path: str) -> Mount | None:
    """The mount of a path: the deepest one, and of several on one mount point the last."""
    best: Mount | None = None
    for mount in mounts:
        if not PurePosixPath(path).is_relative_to(mount.point):
            continue
        if best is None or len(mount.point) >= len(best.point):
            best = mount
    return best


def _disk(tree: SystemFiles, mount: Mount) -> str | None:
    """The sysfs folder of the whole disk below a mount: "/devices/.../block/mmcblk0"."""
    found = None
    if not mount.device.startswith("0:"):
        found = tree.link_target(f"/sys/dev/block/{mount.device}")
    if found is None and mount.source.startswith("/dev/"):
        # btrfs and overlay show an anonymous device; the mount source names the real one.
        found = tree.link_target(f"/sys/class/block/{PurePosixPath(mount.source).name}")
    for _ in range(_MAX_LAYERS):
        if found is None:
            return None
        if tree.exists(f"{found}/partition"):
            found = str(PurePosixPath(found).parent)
        below = tree.names(f"{found}/slaves")
        if not below:
            return found
        found = tree.link_target(f"{found}/slaves/{below[0]}")
    return found


def _kind(tree: SystemFiles, mount: Mount, disk: str | None) -> StorageKind | None:
    if mount.kind in _OVERLAY_FILESYSTEMS:
        return "overlay"
    if mount.kind in _RAM_FILESYSTEMS:
        return "ram"
    if mount.kind in _NETWORK_FILESYSTEMS:
        return "network"
    return _disk_kind(tree, disk) if disk else None


def _disk_kind(tree: SystemFiles, disk: str) -> StorageKind | None:
    """The kind of a whole disk, by its bus first: a USB stick reports itself as rotational."""
    name, parts = PurePosixPath(disk).name, PurePosixPath(disk).parts
    if any(part.startswith("usb") for part in parts):
        return "usb"
    if name.startswith("mmcblk"):
        # The card's own type: SD for an SD card, MMC for a soldered chip.
        return "sd" if tree.text(f"{disk}/device/type") == "SD" else "emmc"
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith(("zram", "ram")):
        return "ram"
    if "virtual" in parts or name.startswith(("vd", "xvd")):
        return "virtual"
    if any(part.startswith(("virtio", "vmbus")) for part in parts):
        return "virtual"
    rotational = tree.number(f"{disk}/queue/rotational")
    return None if rotational is None else "hdd" if rotational else "ssd"


def _free_bytes(tree: SystemFiles, path: str) -> int | None:
    """Free bytes at the nearest existing parent; None for a recorded tree, where the value would be that
    of the disk it is stored on."""
    if not tree.is_live:
        return None
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        stat = os.statvfs(place)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize
