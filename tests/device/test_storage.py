from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.cgroup import read_mounts
from edgeagent.device.storage import Storage, read_storage
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write


def storage_of(root: Path, directory: str | None = "/var/lib/edgeagent") -> Storage:
    tree = SystemFiles(root)
    return read_storage(tree, read_mounts(tree), Path(directory) if directory else None)


@pytest.mark.parametrize(
    ("name", "kind", "disk"),
    [
        ("pi4", "sd", "mmcblk0"),
        ("pi-zero-2w", "sd", "mmcblk0"),
        ("pi5", "nvme", "nvme0n1"),
        ("rk3588", "emmc", "mmcblk0"),
        ("n100", "ssd", "sda"),  # through LVM
        ("laptop-hybrid", "nvme", "nvme0n1"),  # through btrfs and LUKS
        ("container-v2", "overlay", None),
    ],
)
def test_the_medium_below_a_directory_is_found(
    tree_of: Callable[[str], Path], name: str, kind: str, disk: str | None
) -> None:
    storage = storage_of(tree_of(name))
    assert (storage.kind, storage.disk) == (kind, disk)


def test_a_volume_mounted_deeper_is_what_counts(own_tree_of: Callable[[str], Path]) -> None:
    root = own_tree_of("container-v1")
    assert storage_of(root, "/var/lib/edgeagent data/models").kind == "hdd"
    assert storage_of(root, "/var/lib/edgeagent").kind == "overlay"


@pytest.mark.parametrize(
    ("device", "target", "files", "kind"),
    [
        ("8:1", "pci0/usb2/2-1/host0/block/sda/sda1", {"../queue/rotational": "1"}, "usb"),
        ("254:1", "pci0/virtio1/block/vda/vda1", {"../queue/rotational": "1"}, "virtual"),
        ("7:0", "virtual/block/loop0", {}, "virtual"),
        ("8:1", "pci0/ata1/host0/block/sda/sda1", {"../queue/rotational": "1"}, "hdd"),
        ("8:1", "pci0/ata1/host0/block/sda/sda1", {}, None),
    ],
)
def test_the_bus_is_asked_before_the_disk(
    tmp_path: Path, device: str, target: str, files: dict[str, str], kind: str | None
) -> None:
    write(tmp_path, "/proc/self/mountinfo", f"27 1 {device} / / rw - ext4 /dev/root rw")
    folder = tmp_path / "sys/devices" / target
    folder.mkdir(parents=True)
    if "loop" not in target:
        (folder / "partition").write_text("1\n")
    for name, content in files.items():
        place = folder / name
        place.parent.resolve().mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    link = tmp_path / f"sys/dev/block/{device}"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../../devices") / target)
    assert storage_of(tmp_path).kind == kind


@pytest.mark.parametrize(("filesystem", "kind"), [("tmpfs", "ram"), ("nfs4", "network")])
def test_some_filesystems_tell_by_themselves(tmp_path: Path, filesystem: str, kind: str) -> None:
    write(tmp_path, "/proc/self/mountinfo", f"27 1 0:50 / / rw - {filesystem} somewhere rw")
    assert storage_of(tmp_path).kind == kind


@pytest.mark.parametrize(
    ("mount_options", "filesystem_options", "is_read_only"),
    [("rw,noatime", "rw", False), ("ro,relatime", "rw", True), ("rw", "ro,errors=x", True)],
)
def test_a_read_only_mount_over_a_writable_disk_is_read_only(
    tmp_path: Path, mount_options: str, filesystem_options: str, is_read_only: bool
) -> None:
    line = f"27 1 8:1 / / {mount_options} shared:1 - ext4 /dev/sda1 {filesystem_options}"
    write(tmp_path, "/proc/self/mountinfo", line)
    assert storage_of(tmp_path).is_read_only == is_read_only


def test_only_cards_and_soldered_flash_ask_to_be_spared(tree_of: Callable[[str], Path]) -> None:
    assert storage_of(tree_of("pi4")).is_flash_card
    assert storage_of(tree_of("rk3588")).is_flash_card
    assert not storage_of(tree_of("pi5")).is_flash_card


def test_a_recorded_tree_has_no_free_bytes_of_the_machine_it_lies_on(
    tree_of: Callable[[str], Path],
) -> None:
    assert storage_of(tree_of("pi4")).free_bytes is None


def test_on_the_live_machine_a_directory_to_be_made_has_free_bytes(tmp_path: Path) -> None:
    storage = storage_of(Path("/"), str(tmp_path / "not" / "yet"))
    assert storage.free_bytes is not None
    assert storage.free_bytes > 0


def test_no_mounts_is_an_unknown_medium_and_a_note(tmp_path: Path) -> None:
    tree = SystemFiles(tmp_path)
    assert read_storage(tree, [], None).kind is None
    assert any("storage" in note for note in tree.notes)
