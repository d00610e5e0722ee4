"""Heat: temperatures, the points at which the kernel acts, and whether the processor is throttled."""

from __future__ import annotations

import msgspec

from edgeagent.device.system_files import SystemFiles

_ZONES = "/sys/class/thermal"
_CPUS = "/sys/devices/system/cpu"

# The VideoCore's own register, in hexadecimal without a prefix. Newer kernels mark the file as
# deprecated (one warning in the kernel log per boot), but offer only the under-voltage bit instead,
# as the hwmon device "rpi_volt". Source: drivers/firmware/raspberrypi.c
_PI_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = (
    (0, "under_voltage"),
    (1, "frequency_capped"),
    (2, "throttled"),
    (3, "soft_temperature_limit"),
)
_PI_HISTORY_SHIFT = 16
_CAPPED = "scaling_max_lowered"
# What slows a processor for heat or lack of power. A lowered maximum may also be a setting of the device.
FORCED_CAUSES = tuple(name for _, name in _PI_BITS)
THROTTLE_CAUSES = (*FORCED_CAUSES, _CAPPED)


class Trip(msgspec.Struct, frozen=True):
    """A temperature at which the kernel acts: "passive" throttles, "critical" powers off."""

    kind: str
    temp_c: float


class Zone(msgspec.Struct, frozen=True):
    """One sensor: its name in the tree, its location, and its temperature."""

    name: str
    kind: str
    temp_c: float | None
    trips: tuple[Trip, ...] = ()


class Throttling(msgspec.Struct, frozen=True):
    """Whether the processor is throttled.

    `now` and `since_boot` name causes: under_voltage, frequency_capped, throttled, soft_temperature_limit,
    scaling_max_lowered. `n_thermal_events` counts how often since boot an Intel core or package reached
    its limit. `capped_share` is the smallest scaling_max_freq over cpuinfo_max_freq of any CPU: 0.5 means
    limited to half its speed, by heat, power mode or a setting. `is_known` is False if there is no source,
    which does not mean cool.
    """

    is_known: bool = False
    now: tuple[str, ...] = ()
    since_boot: tuple[str, ...] = ()
    n_thermal_events: int | None = None
    capped_share: float | None = None

    @property
    def is_throttled(self) -> bool:
        """Whether anything reduces the clock frequency now."""
        return bool(self.now)


class Thermal(msgspec.Struct, frozen=True):
    """All zones and the throttling state."""

    zones: tuple[Zone, ...] = ()
    throttling: Throttling = Throttling()

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature of any zone, in degrees Celsius."""
        return max((z.temp_c for z in self.zones if z.temp_c is not None), default=None)


def read_thermal(tree: SystemFiles) -> Thermal:
    """Every thermal zone, and what throttles the processor."""
    zones = tuple(_zone(tree, name) for name in tree.names(_ZONES, "thermal_zone*"))
    if not zones:
        tree.note("temperature unknown: /sys/class/thermal has no zone")
    return Thermal(zones=zones, throttling=read_throttling(tree))


def _zone(tree: SystemFiles, name: str) -> Zone:
    base = f"{_ZONES}/{name}"
    trips = []
    for entry in tree.names(base, "trip_point_*_temp"):
        temp_c = _celsius(tree.number(f"{base}/{entry}"))
        kind = tree.text(f"{base}/{entry.removesuffix('_temp')}_type")
        # A trip at 0 degrees or below was not set by the driver.
        if temp_c is not None and temp_c > 0 and kind is not None:
            trips.append(Trip(kind=kind, temp_c=temp_c))
    temp_c = _celsius(tree.number(f"{base}/temp"))
    return Zone(name, tree.text(f"{base}/type") or "unknown", temp_c, tuple(trips))


def _celsius(millidegrees: int | None) -> float | None:
    """Degrees; None for the placeholder values of sensors that are off and trips that are disabled (0 K,
    -40000, -274000 and above 200 degrees)."""
    if millidegrees is None or not -40_000 < millidegrees < 200_000:
        return None
    return millidegrees / 1000


def read_throttling(tree: SystemFiles) -> Throttling:
    """The throttling state; cheap enough for repeated calls (a few file reads per CPU)."""
    now: list[str] = []
    history: list[str] = []
    register = tree.number(_PI_THROTTLED, base=16)
    if register is not None:
        now += [name for bit, name in _PI_BITS if register >> bit & 1]
        history += [name for bit, name in _PI_BITS if register >> (bit + _PI_HISTORY_SHIFT) & 1]
    elif _has_pi_voltage_alarm(tree):
        now.append("under_voltage")
    events = _thermal_events(tree)
    capped = _capped_share(tree)
    if capped is not None and capped < 1:
        now.append(_CAPPED)
    return Throttling(
        is_known=bool(now) or any(fact is not None for fact in (register, events, capped)),
        now=tuple(now),
        since_boot=tuple(history),
        n_thermal_events=events,
        capped_share=capped,
    )


def _has_pi_voltage_alarm(tree: SystemFiles) -> bool:
    base = "/sys/class/hwmon"
    return any(
        tree.text(f"{base}/{name}/name") == "rpi_volt"
        and tree.number(f"{base}/{name}/in0_lcrit_alarm") == 1
        for name in tree.names(base, "hwmon*")
    )


def _thermal_events(tree: SystemFiles) -> int | None:
    """The largest counter: each CPU repeats its package's count, so a sum would be wrong.

    Source: https://docs.kernel.org/admin-guide/thermal/intel_thermal_throttle.html
    """
    counts = []
    for cpu in tree.names(_CPUS, "cpu[0-9]*"):
        for name in ("core_throttle_count", "package_throttle_count"):
            counts.append(tree.number(f"{_CPUS}/{cpu}/thermal_throttle/{name}"))
    return max((count for count in counts if count is not None), default=None)


def _capped_share(tree: SystemFiles) -> float | None:
    shares = []
    for cpu in tree.names(_CPUS, "cpu[0-9]*"):
        allowed = tree.number(f"{_CPUS}/{cpu}/cpufreq/scaling_max_freq")
        possible = tree.number(f"{_CPUS}/{cpu}/cpufreq/cpuinfo_max_freq")
        if allowed and possible:
            shares.append(min(1.0, allowed / possible))
    return min(shares, default=None)
