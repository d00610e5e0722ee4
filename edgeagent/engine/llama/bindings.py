"""The ctypes bindings of llama.cpp: the only file that imports llama_cpp.

`lib` has the functions by their names in llama.h; `llama.py` and a few beside it give them names of ours.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
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


def start() -> None:
    """Have llama.cpp ready. May be called twice.

    Where AMX tiles are refused (`worker/seccomp.py`), it looks for them once, with the first model or here,
    and complains on standard error, past its log: that is kept away.
    """
    lib.llama_backend_init()
    own_stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nowhere, 2)
        _look_for_buffers()
    finally:
        os.dup2(own_stderr, 2)
        os.close(own_stderr)
        os.close(nowhere)


def _look_for_buffers() -> None:
    """Make the list of the processor's own kinds of weight buffers, as loading a model does."""
    found: Any = lib._lib
    if not hasattr(found, "ggml_backend_cpu_reg"):
        return
    pointer = ctypes.c_void_p
    named = {}
    for name, arguments in (
        ("ggml_backend_cpu_reg", ()),
        ("ggml_backend_reg_dev_get", (pointer, ctypes.c_size_t)),
        ("ggml_backend_reg_get_proc_address", (pointer, ctypes.c_char_p)),
    ):
        named[name] = ctypes.CFUNCTYPE(pointer, *arguments)((name, found))
    cpu = named["ggml_backend_cpu_reg"]()
    address = named["ggml_backend_reg_get_proc_address"](cpu, b"ggml_backend_dev_get_extra_bufts")
    if address:
        ctypes.CFUNCTYPE(pointer, pointer)(address)(named["ggml_backend_reg_dev_get"](cpu, 0))
