"""Stored step costs: one JSON file in the state directory, by device, model file and how it is loaded."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import msgspec

from edgeagent.durable import read_json, replace_bytes
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.step_costs import StepCosts

logger = logging.getLogger(__name__)

FILE_NAME = "step_costs.json"
_MAX_KEPT = 16
_MAX_FILE_BYTES = 256 * 1024
_SCHEME = 3  # increase when the meaning of a value changes


class StepCostStore:
    """Step costs in `directory`/step_costs.json; keeps the 16 stored last. Any thread.

    `device_key` is the fingerprint of device and libraries, see `measurement_store`.
    """

    def __init__(self, directory: Path, device_key: str) -> None:
        self._path = directory / FILE_NAME
        self._device_key = device_key
        self._saving = threading.Lock()  # two models may report at once

    def load(self, config: EngineConfig) -> StepCosts | None:
        """The costs of a model loaded like this; None if there are none or the file is damaged."""
        return self._read().get(self._key(config))

    def save(self, config: EngineConfig, costs: StepCosts) -> None:
        """Store atomically. Raises: OSError if the directory cannot be written."""
        key = self._key(config)
        with self._saving:
            kept = {k: v for k, v in self._read().items() if k != key} | {key: costs}
            newest = dict(list(kept.items())[-_MAX_KEPT:])
            replace_bytes(self._path, msgspec.json.format(msgspec.json.encode(newest), indent=1))

    def _key(self, config: EngineConfig) -> str:
        facts = [
            _SCHEME, self._device_key, config.path, config.identity, config.n_threads, config.n_batch,
            config.kv_type, config.flash_attention, config.repack, config.reproducible,
        ]  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def _read(self) -> dict[str, StepCosts]:
        try:
            return read_json(self._path, _MAX_FILE_BYTES, dict[str, StepCosts])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            # Measuring again takes seconds; a damaged file must not keep a model from loading.
            logger.warning("step_costs_unreadable path=%s error=%s", self._path, error)
            return {}
