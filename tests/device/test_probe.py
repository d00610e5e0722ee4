from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.device.probe import Device, probe
from tests.conftest import n_examples
from tests.device.recorded import NAMES, unpack


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_device_is_known_well_enough_to_choose_a_model(
    tree_of: Callable[[str], Path], name: str
) -> None:
    device = probe(tree_of(name))
    capacity = device.capacity
    assert device.cpu.model
    assert device.system.kernel
    assert device.memory.page_bytes
    assert capacity.ram_usable_bytes is not None
    assert capacity.ram_available_bytes is not None
    assert 0 < capacity.ram_available_bytes <= capacity.ram_usable_bytes
    assert 1 <= capacity.n_performance_cores <= capacity.n_physical_cores


@pytest.mark.parametrize("name", NAMES)
def test_a_device_survives_being_written_as_json(tree_of: Callable[[str], Path], name: str) -> None:
    device = probe(tree_of(name))
    assert msgspec.json.decode(msgspec.json.encode(device), type=Device) == device


def test_the_state_directory_may_be_named_inside_or_outside_the_tree(
    tree_of: Callable[[str], Path],
) -> None:
    root = tree_of("container-v1")
    inside = probe(root, state_dir=root / "var/lib/edgeagent data")
    outside = probe(root, state_dir=Path("/var/lib/edgeagent data"))
    assert inside.storage == outside.storage
    assert inside.storage.kind == "hdd"


def test_an_empty_tree_gives_notes_and_no_exception(tmp_path: Path) -> None:
    device = probe(tmp_path)
    assert device.memory.total_bytes is None
    assert device.cores.n_threads_max == 1
    assert len(device.notes) >= 4


def test_the_live_machine_can_be_probed() -> None:
    device = probe(Path("/"), state_dir=Path.cwd())
    assert device.cores.n_threads_max >= 1
    assert device.system.architecture


@pytest.fixture(scope="module")
def damaged_roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trees of this module's own: each example damages one and puts it right again."""
    folder = tmp_path_factory.mktemp("damaged")
    return {name: unpack(name, folder) for name in ("pi5", "laptop-hybrid", "container-v2")}


_FILES = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/swaps",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/proc/self/status",
    "/proc/self/auxv",
    "/proc/device-tree/compatible",
    "/etc/os-release",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/cpu0/cpu_capacity",
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    "/sys/class/thermal/thermal_zone0/temp",
    "/sys/class/thermal/thermal_zone0/trip_point_0_temp",
    "/sys/class/power_supply/BAT0/capacity",
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.stat",
]


@settings(max_examples=n_examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    damage=st.dictionaries(
        st.sampled_from(_FILES),
        st.binary(max_size=80)
        | st.sampled_from([b"9" * 5000, b"MemTotal: " + b"9" * 5000 + b" kB", b"-5", b"\n" * 9])
        | st.text("0123456789-,: kB/\n\0maxprocessor", max_size=80).map(str.encode),
        min_size=1,
        max_size=6,
    ),
    name=st.sampled_from(["pi5", "laptop-hybrid", "container-v2"]),
)
def test_no_content_of_any_file_makes_the_probe_raise(
    damaged_roots: dict[str, Path], damage: dict[str, bytes], name: str
) -> None:
    root = damaged_roots[name]
    places = {root / path.lstrip("/"): blob for path, blob in damage.items()}
    before = {place: place.read_bytes() if place.exists() else None for place in places}
    try:
        for place, blob in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(blob)
        device = probe(root)
    finally:
        for place, old in before.items():
            place.unlink() if old is None else place.write_bytes(old)
    assert device.cores.n_threads_max >= 1
    assert device.cores.n_cores_usable > 0
    usable = device.memory.usable_bytes
    assert usable is None or usable >= 0


def test_the_daemon_side_imports_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys, edgeagent.device.probe, edgeagent.device.profile_match;"
        "import edgeagent.device.measurement_store;"
        "print([m for m in ('numpy', 'llama_cpp', 'edgeagent.catalog', 'edgeagent.engine')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
