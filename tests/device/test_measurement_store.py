from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgeagent.device.measurement import MeasuredRate, Measurement
from edgeagent.device.measurement_store import MeasurementStore, fingerprint
from edgeagent.device.probe import Device, probe
from tests.device.recorded import write

VERSIONS = {"numpy": "2.4.6", "llama_cpp": "0.3.36"}


def measured(when: int) -> Measurement:
    return Measurement(
        measured_utc_ms=when, wall_s=2.5, buffer_bytes=1, memory_gb_per_s=(MeasuredRate(1, 9.5),)
    )


def swap_part(device: Device, part: str, **changes: object) -> Device:
    changed = msgspec.structs.replace(getattr(device, part), **changes)
    return msgspec.structs.replace(device, **{part: changed})


@pytest.fixture
def device(tree_of: Callable[[str], Path]) -> Device:
    return probe(tree_of("pi5"))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("cpu", {"model": "other"}),
        ("cpu", {"features": ("neon",)}),
        ("cores", {"usable_cpus": (0, 1)}),
        ("cores", {"cpu_quota_cores": 1.5}),
        ("memory", {"usable_bytes": 4 << 30}),
        ("memory", {"page_bytes": 4096}),
        ("storage", {"kind": "sd"}),
        ("system", {"kernel": "6.13.1+rpt"}),
    ],
)
def test_what_changes_speed_changes_the_fingerprint(
    device: Device, part: str, changes: dict[str, object]
) -> None:
    other = swap_part(device, part, **changes)
    assert fingerprint(other, VERSIONS) != fingerprint(device, VERSIONS)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("system", {"kernel": "6.12.99+rpt-rpi-2712"}),
        ("memory", {"available_bytes": 1}),
        ("memory", {"usable_bytes": 8_453_259_264 - 65_536}),
        ("power", {"battery_percent": 3}),
        ("storage", {"free_bytes": 3}),
    ],
)
def test_what_changes_by_the_minute_does_not(
    device: Device, part: str, changes: dict[str, object]
) -> None:
    other = swap_part(device, part, **changes)
    assert fingerprint(other, VERSIONS) == fingerprint(device, VERSIONS)


def test_library_versions_count_in_any_order(device: Device) -> None:
    turned = dict(reversed(VERSIONS.items()))
    assert fingerprint(device, turned) == fingerprint(device, VERSIONS)
    assert fingerprint(device, {**VERSIONS, "numpy": "3"}) != fingerprint(device, VERSIONS)


def test_two_looks_at_one_tree_have_one_fingerprint(own_tree_of: Callable[[str], Path]) -> None:
    root = own_tree_of("pi4")
    before = fingerprint(probe(root), VERSIONS)
    write(root, "/sys/class/thermal/thermal_zone0/temp", "40000")
    assert fingerprint(probe(root), VERSIONS) == before
    assert len(before) == 64


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "state" / "new")
    assert store.load("a") is None
    store.save("a", measured(1))
    store.save("b", measured(2))
    assert MeasurementStore(tmp_path / "state" / "new").load("a") == measured(1)
    assert store.load("b") == measured(2)
    assert [path.name for path in store.path.parent.iterdir()] == ["measurements.json"]


def test_only_the_newest_are_kept_and_always_the_one_just_saved(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path)
    for number in range(12):
        store.save(str(number), measured(number + 100))
    store.save("clock went back", measured(1))
    assert store.load("0") is None
    assert store.load("11") is not None
    assert store.load("clock went back") is not None


@pytest.mark.parametrize(
    "blob", [b"", b"{", b"[]", b'{"a": {"wall_s": "x"}}', b"\xff\xfe", b'{"\xff": {}}']
)
def test_a_damaged_file_is_measured_again_and_not_a_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blob: bytes
) -> None:
    store = MeasurementStore(tmp_path)
    store.path.write_bytes(blob)
    with caplog.at_level(logging.WARNING):
        assert store.load("a") is None
    assert "measurements_unreadable" in caplog.text
    store.save("a", measured(1))
    assert store.load("a") == measured(1)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MeasurementStore(tmp_path)
    store.save("a", measured(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save("b", measured(2))
    assert store.load("a") == measured(1)
    assert [path.name for path in tmp_path.iterdir()] == ["measurements.json"]
