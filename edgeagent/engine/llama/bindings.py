"""The ctypes bindings of llama.cpp: the only file that imports llama_cpp.

`lib` has the functions by their names in llama.h; `llama.py` and a few beside it give them names of ours.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
from collections import deque
from pathlib import Path
from typing import Any

from edgeagent.errors import ModelUnusable

logger = logging.getLogger(__name__)


def _load_bindings() -> Any:
    """The ctypes bindings without the package's high-level half, which costs 22 MB and 0.2 s.

    `llama_cpp/__init__.py` imports chat handlers, a disk cache and their libraries. An empty parent
    module with the package's path lets the low-level module and its siblings load alone.
    """
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            raise ModelUnusable(
                "llama-cpp-python is not installed: run scripts/run, or pip install it."
            )
        parent = types.ModuleType("llama_cpp")
        parent.__spec__ = spec
        parent.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["llama_cpp"] = parent
    return importlib.import_module("llama_cpp.llama_cpp")


lib: Any = _load_bindings()


def build() -> str:
    """Which build of llama.cpp this is: the release of its bindings, from the name of their record.

    `importlib.metadata` would read the same name with the mail library, for 2 MB and 25 ms.
    """
    (folder,) = sys.modules["llama_cpp"].__path__
    records = sorted(Path(folder).parent.glob("llama_cpp_python-*.dist-info"))
    if not records:
        return str(lib.llama_version().decode())
    return records[-1].name.removeprefix("llama_cpp_python-").removesuffix(".dist-info")


# The last lines of llama.cpp's log that tell of errors, oldest first.
last_errors: deque[str] = deque(maxlen=8)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _data: object) -> None:
    line = text.decode("utf-8", "replace").strip()
    if not line:
        return
    if level == 4:
        last_errors.append(line)
        logger.error("llama %s", line)
    elif level == 3:
        logger.debug("llama %s", line)


lib.llama_log_set(_on_log, None)
