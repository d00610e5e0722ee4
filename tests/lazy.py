"""Modules that take seconds to import, imported when a test first uses them.

Every process that runs tests imports every test module, also those whose tests another one runs.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for the module of its name until somebody asks for something in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by those who look at every global of a module
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def lazily(name: str) -> Any:
    """The module `name`, imported at the first use of one of its attributes."""
    return _LazyModule(name)
