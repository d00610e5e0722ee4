"""What the package contains and needs, as `nfpm` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeagent.cli.shared.service_units import UNITS, WRITTEN_FOR

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
UNIT_DIR = "/usr/lib/systemd/system"
SETTINGS = "/etc/edgeagent/edgeagent.toml"
SCRIPTS = ("postinst", "prerm", "postrm")
NFPM_SCRIPTS = {"postinst": "postinstall", "prerm": "preremove", "postrm": "postremove"}


def nfpm_configuration(
    version: str, architecture: str, python: tuple[int, int], stage: Path
) -> dict[str, Any]:
    """The configuration of a package whose /opt/edgeagent lies in `stage`. JSON of it is YAML, too.

    The environment belongs to one minor version of Python: its libraries are compiled for it.
    """
    major, minor = python
    contents: list[dict[str, Any]] = [
        {"src": f"{stage}/opt/edgeagent", "dst": "/opt/edgeagent", "type": "tree"},
        {"src": WRITTEN_FOR, "dst": "/usr/bin/edgeagent", "type": "symlink"},
        {
            "src": str(HERE / "edgeagent.toml"),
            "dst": SETTINGS,
            "type": "config|noreplace",
            "file_info": {"mode": 0o644},
        },
        {"src": str(HERE / "copyright"), "dst": "/usr/share/doc/edgeagent/copyright"},
        {"src": str(ROOT / "CHANGELOG.md"), "dst": "/usr/share/doc/edgeagent/CHANGELOG.md"},
    ]
    contents += [
        {
            "src": str(ROOT / "systemd" / name),
            "dst": f"{UNIT_DIR}/{name}",
            "file_info": {"mode": 0o644},
        }
        for name in UNITS
    ]
    return {
        "name": "edgeagent",
        "arch": architecture,
        "platform": "linux",
        "version": version,
        "section": "net",
        "priority": "optional",
        "maintainer": "edgeagent maintainers <maintainers@edgeagent.example>",
        "description": "application server for small language models on edge devices\n"
        "One offline daemon loads GGUF models, serves an API like OpenAI's on the local machine,\n"
        "transcribes speech, and keeps what it stores encrypted.",
        "license": "Apache-2.0",
        "depends": [
            f"python3 (>= {major}.{minor})",
            f"python3 (<< {major}.{minor + 1})",
            "libc6 (>= 2.34)",
            "libgomp1",
            "libstdc++6 (>= 12)",
            "init-system-helpers (>= 1.54)",
            "procps",  # /bin/kill, by which `systemctl reload` tells the daemon
        ],
        "recommends": ["systemd"],
        "contents": contents,
        "scripts": {NFPM_SCRIPTS[name]: str(HERE / name) for name in SCRIPTS},
        "deb": {"compression": "zstd"},
    }
