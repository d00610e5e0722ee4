from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.system_files import SystemFiles
from edgeagent.device.thermal import Trip, read_thermal
from tests.device.recorded import write

REGISTER = "/sys/devices/platform/soc/soc:firmware/get_throttled"
CPU = "/sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("register", "now", "since_boot"),
    [
        ("0", (), ()),
        ("50005", ("under_voltage", "throttled"), ("under_voltage", "throttled")),
        ("50000", (), ("under_voltage", "throttled")),
        ("e0008", ("soft_temperature_limit",), None),
        ("2", ("frequency_capped",), ()),
    ],
)
def test_the_register_of_a_raspberry_pi_is_read_bit_by_bit(
    tmp_path: Path, register: str, now: tuple[str, ...], since_boot: tuple[str, ...] | None
) -> None:
    write(tmp_path, REGISTER, register)
    throttling = read_thermal(SystemFiles(tmp_path)).throttling
    assert throttling.is_known
    assert throttling.now == now
    assert throttling.is_throttled == bool(now)
    if since_boot is not None:
        assert throttling.since_boot == since_boot


def test_without_the_register_the_voltage_alarm_is_asked(tmp_path: Path) -> None:
    write(tmp_path, "/sys/class/hwmon/hwmon1/name", "rpi_volt")
    write(tmp_path, "/sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1")
    throttling = read_thermal(SystemFiles(tmp_path)).throttling
    assert (throttling.is_known, throttling.now) == (True, ("under_voltage",))


def test_counters_repeated_on_every_cpu_are_not_added_up(tree_of: Callable[[str], Path]) -> None:
    throttling = read_thermal(SystemFiles(tree_of("laptop-hybrid"))).throttling
    assert throttling.n_thermal_events == 431
    assert not throttling.is_throttled


def test_a_lowered_frequency_limit_is_a_share(tmp_path: Path) -> None:
    for cpu, allowed in enumerate((2_400_000, 1_200_000)):
        write(tmp_path, f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq", str(allowed))
        write(tmp_path, f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", "2400000")
    throttling = read_thermal(SystemFiles(tmp_path)).throttling
    assert (throttling.capped_share, throttling.now) == (0.5, ("scaling_max_lowered",))


def test_zones_have_their_names_temperatures_and_trips(tree_of: Callable[[str], Path]) -> None:
    thermal = read_thermal(SystemFiles(tree_of("rk3588")))
    assert [zone.kind for zone in thermal.zones][:2] == ["soc-thermal", "bigcore0-thermal"]
    assert thermal.hottest_c == 46.23
    assert thermal.zones[0].trips[0] == Trip("passive", 75.0)


def test_an_idle_sensor_and_unset_trips_are_left_out(tree_of: Callable[[str], Path]) -> None:
    jetson = read_thermal(SystemFiles(tree_of("jetson-orin-nano")))
    assert [zone.temp_c for zone in jetson.zones if zone.kind == "cv0-thermal"] == [None]
    mini = read_thermal(SystemFiles(tree_of("n100")))
    assert [zone.trips for zone in mini.zones if zone.kind == "x86_pkg_temp"] == [()]


def test_nothing_to_read_is_unknown_and_not_cool(tmp_path: Path) -> None:
    thermal = read_thermal(SystemFiles(tmp_path))
    assert thermal.hottest_c is None
    assert not thermal.throttling.is_known
