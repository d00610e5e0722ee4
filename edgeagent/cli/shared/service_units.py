"""The systemd units of edgeagent, fitted to where it is installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from edgeagent.errors import ServiceFailed

UNITS = (
    "edgeagent.socket",
    "edgeagent.service",
    "edgeagent-key.service",
    "edgeagent-maintenance.service",
    "edgeagent-maintenance.timer",
)
# The units that start the others, by a connection and by the clock, and the daemon itself at boot.
ENABLED = ("edgeagent.socket", "edgeagent.service", "edgeagent-maintenance.timer")
UNIT_DIR = Path("/etc/systemd/system")
KEY_FILE = Path("/etc/edgeagent/store.key")
STATE_DIR = Path("/var/lib/edgeagent")  # with DynamicUser= a link to the next
PRIVATE_STATE_DIR = Path("/var/lib/private/edgeagent")

WRITTEN_FOR = "/opt/edgeagent/bin/edgeagent"
# ProtectHome= hides these from the service.
_HIDDEN = ("/home", "/root", "/run/user")


def units_dir() -> Path:
    """Directory of the units: `systemd/` of a checkout, `edgeagent/systemd/` of a wheel."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "systemd"
    return installed if installed.is_dir() else package.parent / "systemd"


def unit_text(name: str, command: Path, port: int) -> str:
    """A unit that runs this `edgeagent` command and listens on this port of loopback.

    Raises: ServiceFailed where the units did not come with edgeagent.
    """
    path = units_dir() / name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ServiceFailed(
            f"Unit {path} cannot be read ({exc.strerror}): install edgeagent again, from its wheel."
        ) from exc
    text = text.replace(WRITTEN_FOR, str(command))
    return re.sub(r"(?m)^(ListenStream=.*):8484$", rf"\g<1>:{port}", text)


def this_command() -> Path:
    """The `edgeagent` command of this installation, for a unit file.

    Raises: ServiceFailed where a service could not run it.
    """
    command = Path(sys.prefix, "bin", "edgeagent")
    if not command.is_file():
        raise ServiceFailed(
            f"There is no command {command}: install edgeagent with pip, e.g. into a virtual environment "
            "in /opt/edgeagent."
        )
    for path in (command, Path(sys.base_prefix).resolve()):
        if hidden := next((part for part in _HIDDEN if path.is_relative_to(part)), None):
            raise ServiceFailed(
                f"{path} is below {hidden}, which services cannot read: install edgeagent elsewhere, with a "
                "Python that is elsewhere, e.g. `python3 -m venv /opt/edgeagent` and "
                "`/opt/edgeagent/bin/pip install edgeagent`."
            )
    return command


def check_command(command: Path) -> None:
    """Raises: ServiceFailed for a command that cannot be written into a unit file."""
    if not command.is_absolute() or re.search(r"[\s%\"'\\$;]", str(command)):
        raise ServiceFailed(
            f"The command {str(command)!r} cannot be written into a unit file: give an absolute path "
            "without spaces and special characters."
        )
