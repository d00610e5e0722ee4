"""The LoRA adapters of a loaded model: loaded with it, and one at a time is part of what is computed.

llama.cpp sets adapters for a whole context, so a step has one adapter for all of its sequences
(`batching/adapter_turns.py`).
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

from edgeagent.engine.llama import bindings
from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import EngineFailed
from edgeagent.types.engine_config import AdapterFile

logger = logging.getLogger(__name__)


class Adapters:
    """Engine thread only, except `ids` and `problems`. They are freed with the model.

    Make them before the context, which sets memory aside for them. One that llama.cpp does not load is left
    out: the model and the other adapters are served all the same.
    """

    def __init__(self, model: Any, files: tuple[AdapterFile, ...]) -> None:
        self._loaded: dict[str, Any] = {}
        self.problems = {file.id: file.problem for file in files if file.problem}
        for file in files:
            if file.problem:
                continue
            bindings.last_errors.clear()
            adapter = lib.llama_adapter_lora_init(model, file.path.encode())
            if adapter:
                self._loaded[file.id] = adapter
            else:
                said = bindings.last_errors[-1] if bindings.last_errors else "no reason given"
                self.problems[file.id] = f"llama.cpp refused it ({said})"
                logger.error("adapter_left_out adapter=%s reason=%r", file.id, said)
        self.ids = frozenset(self._loaded)
        self.current: str | None = None

    def use(self, context: Any, adapter: str | None) -> None:
        """Compute with this adapter from the next step on; None: with the base model alone.

        Raises: EngineFailed.
        """
        if adapter == self.current:
            return
        if adapter is None:
            status = lib.llama_set_adapters_lora(context, None, 0, None)
        else:
            chosen = (lib.llama_adapter_lora_p_ctypes * 1)(self._loaded[adapter])
            status = lib.llama_set_adapters_lora(context, chosen, 1, (ctypes.c_float * 1)(1.0))
        if status != 0:
            raise EngineFailed(f"llama.cpp could not change the adapter to {adapter}: try again.")
        self.current = adapter
