"""Energy that the machine has used, in joules, from what measures it; never estimated.

RAPL counters of Intel and AMD packages (powercap) come first: they add up by themselves. Then current
sensors of boards (INA219, INA226, INA3221 and their like under hwmon), then the battery while it is
discharged: these give watts, which are read again and again and summed up over time. Where nothing can be
read, nothing is measured. RAPL is readable for root only on most systems since 2020 (CVE-2020-8694).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from edgeagent.device.system_files import SystemFiles

_RAPL = "/sys/class/powercap"
_HWMON = "/sys/class/hwmon"
_SUPPLIES = "/sys/class/power_supply"
SAMPLE_S = 0.1


@dataclass(frozen=True)
class Joules:
    """What was used between start and stop. `source`: "rapl", "ina" or "battery". The whole machine's, or
    that of its processor packages for RAPL; other programs' part included."""

    joules: float
    seconds: float
    source: str


@dataclass(frozen=True)
class EnergyReading:
    """One look at what measures energy. `joules`: what the processor packages have used since some time in
    the past, by RAPL's counters, which begin again at 0 when they run over. `watts`: what is used now, by
    `source` ("ina", "battery")."""

    joules: float | None = None
    watts: dict[str, float] = field(default_factory=dict)


def read_energy(tree: SystemFiles) -> EnergyReading:
    """What can be read now; empty where nothing measures energy."""
    meter = EnergyMeter(tree)
    counters = meter.counters()
    sensors, battery = meter.sensor_watts(), meter.battery_watts()
    return EnergyReading(
        sum(counters.values()) / 1e6 if counters else None,
        {name: w for name, w in (("ina", sensors), ("battery", battery)) if w is not None},
    )


class EnergyMeter:
    """Measures from `start` to `stop`; one measurement at a time. A sampled source takes a thread."""

    def __init__(self, tree: SystemFiles) -> None:
        self._tree = tree
        self._domains = [name for name in tree.names(_RAPL) if name.count(":") == 1]
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._joules = 0.0
        self._started_s = self._sampled_s = 0.0
        self._before: dict[str, int] = {}
        self.source = self._find()

    def _find(self) -> str | None:
        if self.counters():
            return "rapl"
        if self.sensor_watts() is not None:
            return "ina"
        return "battery" if self.battery_watts() is not None else None

    def start(self) -> None:
        self._started_s = time.monotonic()
        self._joules = 0.0
        if self.source == "rapl":
            self._before = self.counters()
        elif self.source is not None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample, name="energy", daemon=True)
            self._thread.start()

    def stop(self) -> Joules | None:
        """The energy since `start`; None where nothing measures it, or a source went away."""
        seconds = time.monotonic() - self._started_s
        if self.source == "rapl":
            after = self.counters()
            if after.keys() != self._before.keys():
                return None
            used = sum(self._since(name, after[name]) for name in after)
            return Joules(used / 1e6, seconds, self.source)
        if self.source is None or self._thread is None:
            return None
        self._stop.set()
        self._thread.join()
        self._thread = None
        return Joules(self._joules, self._sampled_s, self.source)

    def _since(self, name: str, now: int) -> int:
        """Microjoules; a counter that ran over begins again at 0."""
        used = now - self._before[name]
        if used < 0:
            used += self._tree.number(f"{_RAPL}/{name}/max_energy_range_uj") or 0
        return max(0, used)

    def counters(self) -> dict[str, int]:
        """Microjoules of each processor package, by RAPL; empty where it cannot be read."""
        found = {name: self._tree.number(f"{_RAPL}/{name}/energy_uj") for name in self._domains}
        return {name: value for name, value in found.items() if value is not None}

    def _watts(self) -> float | None:
        return self.sensor_watts() if self.source == "ina" else self.battery_watts()

    def _sample(self) -> None:
        then, watts = self._started_s, self._watts() or 0.0
        is_last = False
        while not is_last:
            is_last = self._stop.wait(SAMPLE_S)
            now, after = time.monotonic(), self._watts()
            after = watts if after is None else after
            self._joules += (now - then) * (watts + after) / 2
            then, watts = now, after
        self._sampled_s = then - self._started_s

    def sensor_watts(self) -> float | None:
        """The sum over the rails of all INA sensors: power1_input, or voltage times current."""
        total, is_known = 0.0, False
        for name in self._tree.names(_HWMON, "hwmon*"):
            base = f"{_HWMON}/{name}"
            if not (self._tree.text(f"{base}/name") or "").startswith("ina"):
                continue
            power = self._tree.number(f"{base}/power1_input")
            if power is not None:
                total, is_known = total + power / 1e6, True
                continue
            for rail in (1, 2, 3):
                millivolts = self._tree.number(f"{base}/in{rail}_input")
                milliamps = self._tree.number(f"{base}/curr{rail}_input")
                if millivolts is not None and milliamps is not None:
                    total, is_known = total + millivolts * milliamps / 1e6, True
        return total if is_known else None

    def battery_watts(self) -> float | None:
        """What the batteries of the system give; None while none is discharged."""
        total, is_known = 0.0, False
        for name in self._tree.names(_SUPPLIES):
            base = f"{_SUPPLIES}/{name}"
            if self._tree.text(f"{base}/type") != "Battery":
                continue
            if self._tree.text(f"{base}/scope") == "Device":
                continue
            if self._tree.text(f"{base}/status") != "Discharging":
                continue
            power = self._tree.number(f"{base}/power_now")
            current = self._tree.number(f"{base}/current_now")
            voltage = self._tree.number(f"{base}/voltage_now")
            if power is not None:
                total, is_known = total + abs(power) / 1e6, True
            elif current is not None and voltage is not None:
                total, is_known = total + abs(current) * voltage / 1e12, True
        return total if is_known else None
