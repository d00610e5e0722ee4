"""Stored measurements: one JSON file in the state directory, keyed by a fingerprint of the device."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeagent.device.measurement import Measurement
from edgeagent.device.probe import Device
from edgeagent.durable import read_json

logger = logging.getLogger(__name__)

FILE_NAME = "measurements.json"
_MAX_KEPT = 8
_MAX_FILE_BYTES = 1024 * 1024
_SCHEME = 1  # increase when the meaning of a value changes
_RAM_STEP_BYTES = 256 * 1024 * 1024


def fingerprint(device: Device, versions: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal, of everything that a measurement depends on; if it changes, measure again.

    Included: the processor and its instruction sets; the usable CPUs, their kinds and the quota; usable
    RAM in steps of 256 MiB, since MemTotal differs by a few pages between kernels; page size; the kernel's
    first two version numbers, since schedulers and mitigations change with those, while security updates
    come monthly; the kind of storage; and `versions` of the computing libraries, as name to version.

    Not included: heat, battery, load and free memory, which change by the minute. A throttled machine
    should be measured again, but is not a different machine.
    """
    kernel = (device.system.kernel or "").split("-")[0].split(".")[:2]
    facts = {
        "scheme": _SCHEME,
        "cpu": device.cpu.model,
        "features": device.cpu.features,
        "usable_cpus": device.cores.usable_cpus,
        "performance_cpus": device.cores.performance_cpus,
        "quota": device.cores.cpu_quota_cores,
        "max_mhz": device.cores.max_mhz,
        "ram": round((device.memory.usable_bytes or 0) / _RAM_STEP_BYTES),
        "page": device.memory.page_bytes,
        "kernel": kernel,
        "storage": [device.storage.kind, device.storage.disk],
        "versions": dict(versions),
    }
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()


class MeasurementStore:
    """Measurements in `directory`/measurements.json; keeps the 8 newest.

    Keeps no file open. Two processes that save at once do not damage the file: the later one wins.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME

    def load(self, key: str) -> Measurement | None:
        """The measurement with this fingerprint; None if there is none or the file is damaged."""
        return self._read().get(key)

    def save(self, key: str, measurement: Measurement) -> None:
        """Store atomically: after a power cut the file is either the old one or the new one.

        Raises: OSError if the directory cannot be created or written.
        """
        kept = {**self._read(), key: measurement}
        newest = sorted(kept, key=lambda k: (k == key, kept[k].measured_utc_ms))[-_MAX_KEPT:]
        blob = msgspec.json.format(msgspec.json.encode({k: kept[k] for k in newest}), indent=1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{FILE_NAME}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(self.path.parent)

    def _read(self) -> dict[str, Measurement]:
        try:
            return read_json(self.path, _MAX_FILE_BYTES, dict[str, Measurement])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            # Measuring again takes seconds; a damaged cache must not keep the service from starting.
            logger.warning("measurements_unreadable path=%s error=%s", self.path, error)
            return {}


def _sync_directory(directory: Path) -> None:
    """Make the rename durable; filesystems that cannot sync a directory are left alone."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
