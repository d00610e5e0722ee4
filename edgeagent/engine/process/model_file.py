"""The model file that a worker loads. It is opened once, so that the verified file is the one loaded."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.errors import ModelAltered, ModelUnusable
from edgeagent.types.engine_config import EngineConfig


class ModelFile:
    """The open file of one worker's model; it stays open as long as the process lives."""

    def __init__(self, config: EngineConfig) -> None:
        """Raises: ModelUnusable, ModelAltered."""
        self._config = config
        try:
            self._descriptor = os.open(config.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ModelUnusable(
                f"The file of model {config.model_id} cannot be opened ({exc.strerror}): check it with "
                f"`edgeagent models verify {config.model_id}`."
            ) from exc
        self.path = Path(f"/proc/self/fd/{self._descriptor}")
        self.check()

    def inspected(self) -> EngineConfig:
        """The configuration that loads the opened file, even if its path leads to another file by then.

        Our own reader checks the header first, unless the daemon has had it checked in this state of the
        file: llama.cpp crashes on some headers that are valid GGUF. Raises: GGUFRefused.
        """
        if not (self._config.is_inspected and self._config.identity):
            inspect(Path(self._config.path))
        return msgspec.structs.replace(self._config, path=str(self.path))

    def check(self) -> None:
        """Raises: ModelAltered if the file was changed since it was verified."""
        wanted = self._config.identity
        if wanted is not None and identity_of(os.fstat(self._descriptor)) != wanted:
            raise ModelAltered(
                f"The file of model {self._config.model_id} was changed while it was being loaded: try again."
            )
