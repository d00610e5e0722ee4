"""Tests what the sandbox prevents on this kernel: `python -m edgeagent.worker.sandbox_probe FILE PARENT_PID`.

A child confines itself as a worker does and tries what an attacker in a worker would try first. FILE stands
for the key of the store, the parent for the daemon. The child prints a `SandboxEvidence` as JSON.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeagent.worker import spawn
from edgeagent.worker.confinement import SandboxLayers, enter

TIMEOUT_S = 20.0


class SandboxEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The `layers` of a confined process, and the attempts that were `refused` or `reached` their target."""

    layers: SandboxLayers
    refused: list[str]
    reached: list[str]


def gather() -> SandboxEvidence | None:
    """Run the test in a child. None if the child could not start. Blocks for about 0.3 s."""
    with tempfile.NamedTemporaryFile(prefix="edgeagent-probe-") as file:
        try:
            done = spawn.run(
                "edgeagent.worker.sandbox_probe",
                file.name,
                str(os.getpid()),
                capture_output=True,
                timeout=TIMEOUT_S,
            )
            return msgspec.json.decode(done.stdout, type=SandboxEvidence)
        except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
            return None


def main(file: str, parent: str) -> None:
    logging.disable()  # what is missing is in the evidence
    layers = enter()
    attempts: dict[str, Callable[[], object]] = {
        "read a file of this user": lambda: Path(file).read_bytes(),
        "write a file": lambda: Path(file).write_bytes(b"x"),
        "read the daemon's memory": lambda: Path(f"/proc/{parent}/mem").open("rb").close(),
        "read the daemon's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "send the daemon a signal": lambda: os.kill(int(parent), 0),
        "open a socket": lambda: socket.socket().close(),
        "start a program": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
    }
    refused, reached = [], []
    for what, attempt in attempts.items():
        try:
            attempt()
            reached.append(what)
        except OSError:
            refused.append(what)
    evidence = SandboxEvidence(layers=layers, refused=refused, reached=reached)
    sys.stdout.buffer.write(msgspec.json.encode(evidence))
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
