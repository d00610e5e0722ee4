"""The files of a worker's LoRA adapters, opened once, so that those that were verified are those loaded."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.gguf.adapter_header import inspect_adapter
from edgeagent.engine.process.adapter_values import check_values
from edgeagent.errors import GGUFRefused
from edgeagent.types.engine_config import AdapterFile, EngineConfig

logger = logging.getLogger(__name__)


class AdapterFiles:
    """Open files; they stay open as long as the process lives. An adapter that cannot be used is left out,
    and the model is served without it."""

    def __init__(self, config: EngineConfig) -> None:
        self._base = Path(config.path)
        self._files = [_opened(file) for file in config.adapters]

    @property
    def paths(self) -> list[Path]:
        return [Path(file.path) for file in self._files if not file.problem]

    def inspected(self) -> tuple[AdapterFile, ...]:
        """The adapters, with what is wrong with them. Our own reader checks them first: llama.cpp asserts
        some of what their headers say."""
        return tuple(self._inspected(file) for file in self._files)

    def _inspected(self, file: AdapterFile) -> AdapterFile:
        if file.problem:
            return file
        try:
            inspect_adapter(Path(file.path), self._base)
            check_values(Path(file.path))
        except GGUFRefused as exc:
            return _left_out(file, exc.message)
        return file


def _opened(file: AdapterFile) -> AdapterFile:
    """The adapter with the path of its open file."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        return _left_out(file, f"its file cannot be opened ({exc.strerror})")
    if file.identity is not None and identity_of(os.fstat(descriptor)) != file.identity:
        os.close(descriptor)
        return _left_out(file, "its file was changed while the model was being loaded")
    return msgspec.structs.replace(file, path=f"/proc/self/fd/{descriptor}")


def _left_out(file: AdapterFile, problem: str) -> AdapterFile:
    logger.error("adapter_left_out adapter=%s reason=%r", file.id, problem)
    return msgspec.structs.replace(file, problem=problem)
