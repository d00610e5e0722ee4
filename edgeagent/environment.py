"""What the process's environment says: the only place that reads `os.environ`."""

from __future__ import annotations

import os
from pathlib import Path

ENV_PREFIX = "EDGEAGENT_"
API_KEY = ENV_PREFIX + "API_KEY"  # no setting: it is a secret, and belongs to who calls
# What a worker process is told: language and time zone, where libraries lie, how they compute.
_FOR_WORKERS = frozenset({
    "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONMALLOC", "PYTHONNOUSERSITE",
    "PYTHONUSERBASE", "PYTHONUTF8", "TZ", "VIRTUAL_ENV",
})  # fmt: skip
_FOR_WORKERS_PREFIXES = ("LC_", "OMP_", "GOMP_", "KMP_", "GGML_", "MALLOC_", "GLIBC_TUNABLES")


def variables() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


def default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/edgeagent")
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base or Path.home() / ".local" / "state") / "edgeagent"


def default_key_file() -> Path:
    if os.geteuid() == 0:
        return Path("/etc/edgeagent/store.key")
    base = os.environ.get("XDG_CONFIG_HOME")
    return Path(base or Path.home() / ".config") / "edgeagent" / "store.key"


def keep_kernels() -> None:
    """Let oneDNN keep its kernels of all shapes that a training meets; before torch is imported.

    It keeps 1,024 of them, and batches of texts have more: generating kernels again and again took more
    time than using them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def listen_fds(pid: int) -> int:
    """How many sockets systemd handed to process `pid` (LISTEN_PID, LISTEN_FDS); 0 without it."""
    if os.environ.get("LISTEN_PID") != str(pid):
        return 0
    count = os.environ.get("LISTEN_FDS", "0")
    return int(count) if count.isdigit() else 0


def credential(name: str) -> Path | None:
    """The file of a systemd credential (LoadCredential=, LoadCredentialEncrypted=), if we were given it."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / name if folder else None
    return path if path is not None and path.is_file() else None


def client_api_key() -> str | None:
    """The API key that our own commands send to the daemon (EDGEAGENT_API_KEY)."""
    return os.environ.get(API_KEY) or None


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of this process with `extra` over it, for a program that we start. It makes no
    requests of its own, so it gets no API key."""
    return {name: value for name, value in os.environ.items() if name != API_KEY} | extra


def worker_environment(**extra: str) -> dict[str, str]:
    """The environment of a worker process: what is known to be needed, with `extra` over it.

    Everything else stays out: API keys, tokens of model hubs, credentials of a service manager. BLAS
    computes on the calling thread, since threads that run before a process confines itself escape it.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _FOR_WORKERS or name.startswith(_FOR_WORKERS_PREFIXES)
    }
    return kept | {"OPENBLAS_NUM_THREADS": "1"} | extra


def python_path() -> list[str]:
    """The directories of PYTHONPATH, absolute; without the empty one, which is the current directory."""
    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(path).absolute()) for path in listed if path]
