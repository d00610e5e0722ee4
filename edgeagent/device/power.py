"""Power: mains or battery."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeagent.device.system_files import SystemFiles

_BASE = "/sys/class/power_supply"
# The kernel's types of external supply. Source: power_supply_sysfs.c
_OUTSIDE = frozenset(
    {"Mains", "UPS", "USB", "USB_C", "USB_PD", "USB_PD_DRP", "USB_DCP", "USB_CDP", "Wireless"}
)


class Power(msgspec.Struct, frozen=True):
    """`source` None: the kernel lists no supply, which is usual for boards and servers on mains power.

    `battery_percent` is the charge of the first system battery, 0 to 100.
    """

    source: Literal["mains", "battery"] | None = None
    has_battery: bool = False
    battery_percent: int | None = None


def read_power(tree: SystemFiles) -> Power:
    """The current power source; batteries of mice and headsets (scope Device) do not count."""
    batteries: list[str] = []
    is_fed = False
    for name in tree.names(_BASE):
        base = f"{_BASE}/{name}"
        kind = tree.text(f"{base}/type")
        if kind == "Battery" and tree.text(f"{base}/scope") != "Device":
            batteries.append(base)
        elif kind in _OUTSIDE and (tree.number(f"{base}/online") or 0) > 0:
            is_fed = True
    if not batteries:
        return Power(source="mains" if is_fed else None)
    percent = tree.number(f"{batteries[0]}/capacity")
    # A charger without a driver is still visible in the battery's status.
    statuses = {tree.text(f"{base}/status") for base in batteries}
    is_draining = "Discharging" in statuses and not is_fed
    is_known = is_fed or is_draining or bool(statuses & {"Charging", "Full", "Not charging"})
    source: Literal["mains", "battery"] = "battery" if is_draining else "mains"
    return Power(source if is_known else None, True, percent)
