"""What the user and the service manager tell this process in its environment.

What processes that compute get of it: `worker/process_environment`. No other module reads `os.environ`.
"""

from __future__ import annotations

import os
from pathlib import Path

ENV_PREFIX = "EDGEAGENT_"
API_KEY = ENV_PREFIX + "API_KEY"  # not a setting: the secret of a client


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
