"""Stored engine flags: one JSON file in the state directory, by device and model file."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from edgeagent.durable import read_json, replace_bytes
from edgeagent.types.engine_flags import EngineFlags

logger = logging.getLogger(__name__)

FILE_NAME = "engine_flags.json"
_MAX_KEPT = 64
_MAX_FILE_BYTES = 256 * 1024


class EngineFlagsStore:
    """Flags in `directory`/engine_flags.json; keeps the 64 stored last. Any thread.

    `device_key` is the fingerprint of device and libraries, see `measurement_store`. A file that was
    replaced has no flags.
    """

    def __init__(self, directory: Path, device_key: str) -> None:
        self._path = directory / FILE_NAME
        self._device_key = device_key

    def load(self, model: Path) -> EngineFlags | None:
        """The flags of a model file; None if there are none or they cannot be read."""
        key = self._key(model)
        return self._read().get(key) if key is not None else None

    def save(self, model: Path, flags: EngineFlags) -> None:
        """Store atomically. Raises: OSError if model or directory cannot be used."""
        model.stat()
        key = self._key(model)
        assert key is not None
        kept = {k: v for k, v in self._read().items() if k != key} | {key: flags}
        newest = dict(list(kept.items())[-_MAX_KEPT:])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(self._path, msgspec.json.format(msgspec.json.encode(newest), indent=1))

    def _key(self, model: Path) -> str | None:
        try:
            stat = model.stat()
        except OSError:
            return None
        facts = [self._device_key, str(model.absolute()), stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def _read(self) -> dict[str, EngineFlags]:
        try:
            return read_json(self._path, _MAX_FILE_BYTES, dict[str, EngineFlags])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            # Measuring again takes minutes; a damaged file must not keep a model from loading.
            logger.warning("engine_flags_unreadable path=%s error=%s", self._path, error)
            return {}
