"""Energy from recorded trees: RAPL counters, current sensors, a battery, and nothing at all."""

from __future__ import annotations

import pytest

from edgeagent.device import energy
from edgeagent.device.energy import EnergyMeter, EnergyReading, read_energy
from edgeagent.device.system_files import SystemFiles

RAPL = "sys/class/powercap/intel-rapl:0"
INA = "sys/class/hwmon/hwmon"
BATTERY = "sys/class/power_supply/BAT0"


def write(root, **files):
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def meter(root, files):
    write(root, **files)
    return EnergyMeter(SystemFiles(root))


def test_rapl_counters_of_packages_add_up_and_may_run_over(tmp_path):
    found = meter(
        tmp_path,
        {
            f"{RAPL}/energy_uj": 900, f"{RAPL}/max_energy_range_uj": 1000,
            "sys/class/powercap/intel-rapl:1/energy_uj": 5_000_000,
            f"{RAPL}:0/energy_uj": 77,  # a part of the first package
        },
    )  # fmt: skip
    assert found.source == "rapl"
    found.start()
    write(tmp_path, **{f"{RAPL}/energy_uj": 100})
    write(tmp_path, **{"sys/class/powercap/intel-rapl:1/energy_uj": 7_000_000})
    used = found.stop()
    assert used is not None and used.source == "rapl"
    assert used.joules == pytest.approx((2_000_000 + 200) / 1e6)


def test_one_look_tells_joules_so_far_and_watts_of_now(tmp_path):
    tree = SystemFiles(tmp_path)
    assert read_energy(tree) == EnergyReading(None, {})
    write(tmp_path, **{f"{RAPL}/energy_uj": 2_500_000, f"{RAPL}:0/energy_uj": 77})
    write(tmp_path, **{f"{INA}0/name": "ina226", f"{INA}0/power1_input": 4_500_000})
    assert read_energy(tree) == EnergyReading(2.5, {"ina": 4.5})


def test_a_counter_that_nobody_may_read_is_no_counter(tmp_path):
    write(tmp_path, **{f"{RAPL}/name": "package-0"})
    assert EnergyMeter(SystemFiles(tmp_path)).source is None


@pytest.mark.parametrize(
    ("files", "source", "watts"),
    [
        ({f"{INA}0/name": "ina226", f"{INA}0/power1_input": 4_500_000}, "ina", 4.5),
        (
            {
                "sys/class/hwmon/hwmon1/name": "ina3221", "sys/class/hwmon/hwmon1/in1_input": 5000,
                "sys/class/hwmon/hwmon1/curr1_input": 800, "sys/class/hwmon/hwmon1/in2_input": 1000,
                "sys/class/hwmon/hwmon1/curr2_input": 500,
            },
            "ina", 4.5,
        ),
        (
            {
                f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Discharging",
                f"{BATTERY}/current_now": 500_000, f"{BATTERY}/voltage_now": 9_000_000,
            },
            "battery", 4.5,
        ),
    ],
)  # fmt: skip
def test_sensors_in_watts_are_summed_up_over_time(tmp_path, files, source, watts, monkeypatch):
    monkeypatch.setattr(energy, "SAMPLE_S", 0.001)
    found = meter(tmp_path, files)
    assert found.source == source
    found.start()
    used = found.stop()
    assert used is not None and used.source == source
    assert used.joules == pytest.approx(watts * used.seconds, rel=1e-6)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/class/hwmon/hwmon0/name": "k10temp", "sys/class/hwmon/hwmon0/power1_input": 1},
        {
            "sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Charging",
            "sys/class/power_supply/BAT0/power_now": 9_000_000,
        },
    ],
)  # fmt: skip
def test_what_nothing_measures_is_unmeasured(tmp_path, files):
    found = meter(tmp_path, files)
    found.start()
    assert found.source is None and found.stop() is None
