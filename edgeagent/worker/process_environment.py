"""The environment of processes that compute: what children get of ours, and what their libraries are told.

Besides `settings/environment` the only module that reads `os.environ`.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

CLIENT_KEY = "EDGEAGENT_API_KEY"  # `settings.environment.API_KEY`: no child is told it
# Variables that worker processes get: language and time zone, paths of libraries, and their options.
_FOR_WORKERS = frozenset({
    "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONMALLOC", "PYTHONNOUSERSITE",
    "PYTHONUSERBASE", "PYTHONUTF8", "TZ", "VIRTUAL_ENV",
})  # fmt: skip
_FOR_WORKERS_PREFIXES = (
    "LC_", "OMP_", "GOMP_", "KMP_", "GGML_", "ONEDNN_", "CT2_", "MALLOC_", "GLIBC_TUNABLES",
)  # fmt: skip
# oneDNN, which computes for Whisper, keeps the code that it generates for each shape of matrices, 1,024 of
# them by default. The encoder's length follows what was said: that grew by 180 MB in 110 windows (zen4,
# 2026-11-30), and with 8 shapes by 10, in the same time.
_MOST_SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}
# How often a thread of libgomp looks before it sleeps at a barrier: a quarter of a millisecond. The default
# is 300,000 times (14 ms on x86-64); beside other programs it is lost at each barrier whose last thread
# has no core: 16 tokens of a prompt took 2 to 9 s on two threads beside a busy process. Measured with 8
# clients (SmolLM2-135M, xeon, 2026-11-29, tokens/s over those of the default): alone 1.06 with 6,000 and 0.91
# with 1,000; beside a busy process 1.39 with 6,000, and with 1,000 another 1.18 times as much. The loop of
# x86-64 pauses for 40 to 140 cycles each time, that of other processors does not.
# Source: libgomp, env.c and config/linux/wait.h
_SPINS = {"x86_64": 6_000}
_SPINS_WITHOUT_PAUSE = 20_000
# The default, for workers whose threads sleep at once beside other programs (see engine/llama) where no two
# processors share a core: there a thread that looks takes nothing from others. A thread that has slept may be
# woken on the core of the one that wakes it, while its own is idle, and both compute there for some
# milliseconds: with 30,000 (1.4 ms) one client had 0.84 of the tokens/s and 8 had 0.89, with gaps p95 of 10.7
# in place of 9.6 and 32 in place of 27 ms. Beside a busy process both have the same (zen4, 2026-11-30).
_SPINS_LONG = {"x86_64": 300_000}
_SMT = Path("/sys/devices/system/cpu/smt/active")
_WAITING_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a program that we start: that of this process, overridden by `extra`, without the
    API key."""
    return {name: value for name, value in os.environ.items() if name != CLIENT_KEY} | extra


def worker_environment(waits_long: bool = False, /, **extra: str) -> dict[str, str]:
    """The environment of a worker process: known variables, overridden by `extra`.

    Everything else is left out: API keys, tokens of model hubs, credentials of a service manager. BLAS
    computes on the calling thread, because threads started before the confinement would escape it. Threads
    that wait for each other give up their core soon, unless a variable says how they wait; with `waits_long`
    not so soon, where that is faster alone. Code for shapes of matrices is kept for few of them.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _FOR_WORKERS or name.startswith(_FOR_WORKERS_PREFIXES)
    }
    if not any(name in kept for name in _WAITING_VARIABLES):
        spins = _SPINS_LONG if waits_long and not _shares_cores() else _SPINS
        kept["GOMP_SPINCOUNT"] = str(spins.get(platform.machine(), _SPINS_WITHOUT_PAUSE))
    return _MOST_SHAPES | kept | {"OPENBLAS_NUM_THREADS": "1"} | extra


def _shares_cores() -> bool:
    """Whether processors are threads of the same cores, as far as the kernel says."""
    try:
        return _SMT.read_text().strip() != "0"
    except OSError:
        return True


def python_path() -> list[str]:
    """The absolute directories of PYTHONPATH, without the empty entry, which is the current directory."""
    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(path).absolute()) for path in listed if path]


def compute_with_avx512() -> None:
    """Let CTranslate2 take its AVX-512 functions. Call before it is imported.

    It takes those of AVX2 unless it is told so: a chunk of text took 18% more time (zen4, 2026-11-30).
    """
    os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")


def keep_kernels() -> None:
    """Let oneDNN cache the kernels of all shapes in a training. Call before torch is imported.

    By default it caches 1,024; batches of texts have more shapes, and generating kernels again took more time
    than using them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def keep_arithmetic_single() -> None:
    """Let numpy multiply on one thread. Call before it is imported.

    Its matrices are small in a training without torch: beside other programs two threads that wait for each
    other took 20 times as long as one (zen4, load 20, 2026-11-29).
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
