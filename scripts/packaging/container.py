"""What the Containerfile says, and a trial of it without a container engine.

The trial gives a process what a container would: the root that the package was installed into, read-only,
with its volumes and nothing else to write into, the user, the environment, the command, the health check.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("Containerfile")


@dataclass
class Image:
    """The instructions that count when a container runs."""

    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def read_image(text: str) -> Image:
    """Read a Containerfile of one stage, with commands in the form of lists."""
    image, entry, arguments = Image(), [], []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        match name:
            case "USER":
                image.user = rest
            case "ENV":
                key, _, value = rest.partition("=")
                image.environment[key] = value
            case "VOLUME":
                image.volumes.append(rest)
            case "ENTRYPOINT":
                entry = json.loads(rest)
            case "CMD":
                arguments = json.loads(rest)
            case "HEALTHCHECK":
                image.health = json.loads(rest.partition("CMD ")[2])
    image.command = [*entry, *arguments]
    return image


def run_read_only(
    root: Path, image: Image, patience_s: float = 120.0
) -> list[tuple[str, bool, str]]:
    """Start the command in a root that is mounted read-only: (what, whether it held, what was said) each.

    Needs root. The root must hold the package, and /proc and /dev. `patience_s`: until the daemon is up."""
    user, _, group = image.user.partition(":")
    for volume in image.volumes:
        path = root / volume.lstrip("/")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        os.chown(path, int(user), int(group))
    mounts = [f"mount --bind {shlex.quote(str(root))} {shlex.quote(str(root))}"]
    for volume in image.volumes:
        path = shlex.quote(f"{root}{volume}")
        mounts.append(f"mount --bind {path} {path}")
    mounts.append(f"mount -o remount,bind,ro {shlex.quote(str(root))}")
    inside = ["chroot", f"--userspec={image.user}", str(root)]
    environment = image.environment | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    script = "; ".join(mounts) + '; exec "$@"'

    def start(command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*apart, script, "sh", *inside, *command],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def said(command: list[str]) -> tuple[int, str]:
        process = start(command)
        output, _ = process.communicate(timeout=patience_s)
        return process.returncode, output.strip()[-200:]

    found = []
    status, output = said(["touch", "/usr/written"])
    found.append(("the root cannot be written", status != 0, output))
    daemon = start(image.command)
    deadline = time.monotonic() + patience_s
    while (answer := said(image.health))[0] != 0 and time.monotonic() < deadline:
        if daemon.poll() is not None:
            break
        time.sleep(0.5)
    found.append(("the health check succeeds", answer[0] == 0, answer[1]))
    daemon.terminate()
    output, _ = daemon.communicate(timeout=patience_s)
    found.append(("it ends when it is told", daemon.returncode in (0, -15, 143), output[-300:]))
    found.append(("the health check fails then", said(image.health)[0] != 0, ""))
    key = root / image.environment["EDGEAGENT_STORE__KEY_FILE"].lstrip("/")
    found.append(("the key is in its own volume", key.is_file(), ""))
    return found


def print_trial(root: Path, patience_s: float) -> int:
    """The number of things that did not hold, each printed."""
    n_failed = 0
    for name, is_good, told in run_read_only(root, read_image(FILE.read_text()), patience_s):
        n_failed += not is_good
        print(f"{'ok' if is_good else 'FAILED':<7}{name:<34}", flush=True)
        if not is_good:
            print(told, file=sys.stderr)
    return n_failed
