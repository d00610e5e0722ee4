"""How fast this device multiplies weights of each tensor type: measured in a process of its own, and kept.

One JSON file in the state directory, by device, libraries and number of threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeagent.device.probe import Device
from edgeagent.durable import read_json, replace_bytes
from edgeagent.types.measurement import TensorRate
from edgeagent.worker import spawn

logger = logging.getLogger(__name__)

FILE_NAME = "tensor_rates.json"
GRACE_S = 30.0  # beyond the limit a child is stuck: it stops by itself after a type
_MAX_KEPT = 8
_MAX_FILE_BYTES = 256 * 1024
_SCHEME = 2  # increase when the meaning of a value changes
# Weights that a few caches full of 4-bit types hold, within these bounds: decoding reads from memory.
_LEAST_WEIGHTS, _MOST_WEIGHTS = 1 << 24, 1 << 27
_LLC_UNKNOWN_BYTES = 8 << 20
_CACHES = 4

Progress = Callable[[str, float], None]


class TensorRates(msgspec.Struct, frozen=True):
    """The rates of each measured type with `n_threads` threads."""

    measured_utc_ms: int
    n_threads: int
    rates: dict[str, TensorRate]


def least_disturbed(one: TensorRates, other: TensorRates) -> TensorRates:
    """The higher figures of two measurements, since whatever else the machine does makes them lower."""
    rates = {
        kind: TensorRate(
            max(rate.decode for rate in both),
            max(rate.prefill for rate in both),
            both[-1].is_repacked,
            max(rate.few for rate in both),
        )
        for kind in one.rates | other.rates
        if (both := [each.rates[kind] for each in (one, other) if kind in each.rates])
    }
    return TensorRates(other.measured_utc_ms, other.n_threads, rates)


class TensorRateStore:
    """Rates in `directory`/tensor_rates.json. Any thread.

    `device_key` is the fingerprint of device and libraries, see `measurement_store`.
    """

    def __init__(self, directory: Path, device_key: str) -> None:
        self._path = directory / FILE_NAME
        self._device_key = device_key

    def load(self, n_threads: int) -> TensorRates | None:
        """The rates with so many threads; None if there are none or they cannot be read."""
        return self._read().get(self._key(n_threads))

    def save(self, found: TensorRates) -> None:
        """Store atomically. Raises: OSError if the directory cannot be written."""
        key = self._key(found.n_threads)
        kept = {k: v for k, v in self._read().items() if k != key} | {key: found}
        newest = dict(list(kept.items())[-_MAX_KEPT:])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(self._path, msgspec.json.format(msgspec.json.encode(newest), indent=1))

    def _key(self, n_threads: int) -> str:
        facts = [_SCHEME, self._device_key, n_threads]
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def _read(self) -> dict[str, TensorRates]:
        try:
            return read_json(self._path, _MAX_FILE_BYTES, dict[str, TensorRates])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("tensor_rates_unreadable path=%s error=%s", self._path, error)
            return {}


class _Line(msgspec.Struct, frozen=True):
    """A line of the child: the type being measured, or its rate, or why there is none."""

    doing: str | None = None
    type: str | None = None
    rate: TensorRate | None = None
    error: str | None = None


def measure_tensors(
    device: Device,
    n_threads: int,
    *,
    limit_s: float,
    progress: Progress = lambda what, share: None,
    watch: Callable[[subprocess.Popen[str]], None] = lambda process: None,
) -> TensorRates:
    """Measure all types; those for which the time does not suffice, or the memory, are left out.

    Blocks for about `limit_s` seconds: call it from a thread. `watch` gets the process, which may be killed.
    Does not raise if the child fails.
    """
    caches = _CACHES * 2 * (device.cpu.llc_bytes or _LLC_UNKNOWN_BYTES)  # two weights a byte
    room = (device.memory.available_bytes or 0) // 8  # float16 in two copies, and as much left
    n_weights = max(
        1 << 22, min(max(_LEAST_WEIGHTS, caches), _MOST_WEIGHTS, room or _LEAST_WEIGHTS)
    )
    found: dict[str, TensorRate] = {}
    begun = time.monotonic()
    with spawn.start(
        "edgeagent.engine.llama.tensor_speed",
        "--threads", str(n_threads), "--weights", str(n_weights), "--limit", str(limit_s),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        watch(process)
        timer = threading.Timer(limit_s + GRACE_S, process.kill)
        timer.name = "tensor-rates-timeout"
        timer.start()
        try:
            assert process.stdout is not None
            for text in process.stdout:
                with contextlib.suppress(msgspec.MsgspecError):
                    line = msgspec.json.decode(text, type=_Line)
                    if line.type is not None and line.rate is not None:
                        found[line.type] = line.rate
                    elif line.error is not None:
                        logger.warning("tensor_rates_failed %s", line.error)
                    share = min(1.0, (time.monotonic() - begun) / limit_s)
                    progress(f"{line.doing or line.type}", share)
        finally:
            process.kill()
            timer.cancel()
            timer.join()
    return TensorRates(int(time.time() * 1000), n_threads, found)
