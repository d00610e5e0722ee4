"""The environment of the process; the only module that reads `os.environ`."""

from __future__ import annotations

import os
import platform
from pathlib import Path

ENV_PREFIX = "EDGEAGENT_"
API_KEY = ENV_PREFIX + "API_KEY"  # not a setting: the secret of a client
# Variables that worker processes get: language and time zone, paths of libraries, and their options.
_FOR_WORKERS = frozenset({
    "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONMALLOC", "PYTHONNOUSERSITE",
    "PYTHONUSERBASE", "PYTHONUTF8", "TZ", "VIRTUAL_ENV",
})  # fmt: skip
_FOR_WORKERS_PREFIXES = ("LC_", "OMP_", "GOMP_", "KMP_", "GGML_", "MALLOC_", "GLIBC_TUNABLES")
# How often a thread of libgomp looks before it sleeps at a barrier: a quarter of a millisecond. The default
# is 300,000 times (14 ms on x86-64); beside other programs it is lost at each barrier whose last thread
# has no core: 16 tokens of a prompt took 2 to 9 s on two threads beside a busy process. Measured with 8
# clients (SmolLM2-135M, xeon, 2026-11-29, tokens/s over those of the default): alone 1.06 with 6,000 and 0.91
# with 1,000; beside a busy process 1.39 with 6,000, and with 1,000 another 1.18 times as much. The loop of
# x86-64 pauses for 40 to 140 cycles each time, that of other processors does not.
# Source: libgomp, env.c and config/linux/wait.h
_SPINS = {"x86_64": 6_000}
_SPINS_WITHOUT_PAUSE = 20_000
# The same, 1.4 ms, for workers whose threads sleep at once beside other programs (see engine/llama)
# where no two processors share a core: there a thread that looks takes nothing from others. With 300,000,
# 30,000 and 6,000 one client has 104, 99 and 85 tokens/s, and 8 have 174, 167 and 156 (zen4, 2026-11-29).
_SPINS_LONG = {"x86_64": 30_000}
_SMT = Path("/sys/devices/system/cpu/smt/active")
_WAITING_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def variables() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


def default_state_dir() -> Path:
    """In the user's home; the system's directory for root and for users of services, who have no home."""
    base = _user_dir("XDG_STATE_HOME", ".local/state")
    return base / "edgeagent" if base is not None else Path("/var/lib/edgeagent")


def default_key_file() -> Path:
    """As `default_state_dir`, but never in it: a copy of the state directory must not open the store."""
    base = _user_dir("XDG_CONFIG_HOME", ".config")
    return (base if base is not None else Path("/etc")) / "edgeagent" / "store.key"


def _user_dir(variable: str, in_home: str) -> Path | None:
    if os.geteuid() == 0:
        return None
    if base := os.environ.get(variable):
        return Path(base)
    try:
        return Path.home() / in_home
    except RuntimeError:
        return None


def keep_kernels() -> None:
    """Let oneDNN cache the kernels of all shapes in a training. Call before torch is imported.

    By default it caches 1,024; batches of texts have more shapes, and generating kernels again took more time
    than using them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def listen_fds(pid: int) -> int:
    """The number of sockets that systemd passed to process `pid` (LISTEN_PID, LISTEN_FDS)."""
    if os.environ.get("LISTEN_PID") != str(pid):
        return 0
    count = os.environ.get("LISTEN_FDS", "0")
    return int(count) if count.isdigit() else 0


def notify_socket() -> str | None:
    """Address of the service manager's notification socket (NOTIFY_SOCKET), if there is a manager."""
    return os.environ.get("NOTIFY_SOCKET") or None


def watchdog_s(pid: int) -> float | None:
    """Seconds after which the service manager ends process `pid` if it does not report (WATCHDOG_USEC)."""
    if os.environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    interval = os.environ.get("WATCHDOG_USEC", "")
    return int(interval) / 1e6 if interval.isdigit() and int(interval) > 0 else None


def credential(name: str) -> Path | None:
    """The file of a systemd credential (LoadCredential=, LoadCredentialEncrypted=), if there is one."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / name if folder else None
    return path if path is not None and path.is_file() else None


def client_api_key() -> str | None:
    """The API key that edgeagent's own commands send to the daemon (EDGEAGENT_API_KEY)."""
    return os.environ.get(API_KEY) or None


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a program that we start: that of this process, overridden by `extra`, without the
    API key."""
    return {name: value for name, value in os.environ.items() if name != API_KEY} | extra


def worker_environment(waits_long: bool = False, /, **extra: str) -> dict[str, str]:
    """The environment of a worker process: known variables, overridden by `extra`.

    Everything else is left out: API keys, tokens of model hubs, credentials of a service manager. BLAS
    computes on the calling thread, because threads started before the confinement would escape it. Threads
    that wait for each other give up their core soon, unless a variable says how they wait; with `waits_long`
    not so soon, where that is faster alone.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _FOR_WORKERS or name.startswith(_FOR_WORKERS_PREFIXES)
    }
    if not any(name in kept for name in _WAITING_VARIABLES):
        spins = _SPINS_LONG if waits_long and not _shares_cores() else _SPINS
        kept["GOMP_SPINCOUNT"] = str(spins.get(platform.machine(), _SPINS_WITHOUT_PAUSE))
    return kept | {"OPENBLAS_NUM_THREADS": "1"} | extra


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
