from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent.device.power import Power, read_power
from edgeagent.device.system_files import SystemFiles
from tests.device.recorded import write


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, Power(None, False, None)),
        ({"AC": {"type": "Mains", "online": "1"}}, Power("mains", False, None)),
        (
            {"BAT0": {"type": "Battery", "status": "Discharging", "capacity": "40"}},
            Power("battery", True, 40),
        ),
        (
            {
                "AC": {"type": "Mains", "online": "1"},
                "BAT0": {"type": "Battery", "status": "Charging", "capacity": "40"},
            },
            Power("mains", True, 40),
        ),
        # Plugged in and still draining, as a weak USB-C supply does: fed from outside.
        (
            {
                "ucsi-1": {"type": "USB", "online": "1"},
                "BAT0": {"type": "Battery", "status": "Discharging", "capacity": "9"},
            },
            Power("mains", True, 9),
        ),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, Power("mains", True, None)),
        ({"BAT0": {"type": "Battery", "status": "Unknown"}}, Power(None, True, None)),
        ({"mouse": {"type": "Battery", "scope": "Device", "capacity": "3"}}, Power()),
    ],
)
def test_power_comes_from_where_the_supplies_say(
    tmp_path: Path, supplies: dict[str, dict[str, str]], expected: Power
) -> None:
    for supply, files in supplies.items():
        for name, content in files.items():
            write(tmp_path, f"/sys/class/power_supply/{supply}/{name}", content)
    assert read_power(SystemFiles(tmp_path)) == expected


def test_a_laptop_on_battery_ignores_the_battery_of_its_mouse(
    tree_of: Callable[[str], Path],
) -> None:
    assert read_power(SystemFiles(tree_of("laptop-hybrid"))) == Power("battery", True, 63)
