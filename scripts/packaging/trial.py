"""Tries a package in a new root: installs it, asks a question, removes, purges, and shows what is left.

A package for another processor runs in qemu-user, ten to twenty times slower. Workers have no seccomp there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.cli.shared.service_units import UNITS
from scripts.packaging.container import FILE, print_trial, read_image
from scripts.packaging.target import TARGETS, Target

PACKAGES = "python3,libgomp1,libstdc++6,init-system-helpers,procps"
# What a package manager keeps of its own work.
NOT_OURS = (
    "var/lib/dpkg",
    "var/log",
    "var/cache",
    "var/lib/apt",
    "tmp",
    "proc",
    "dev",
    "sys",
    "run",
)
QUESTION = """
import json, subprocess, sys, time, urllib.request
daemon = subprocess.Popen(["edgeagent", "serve", "--port", "8484"], stdout=subprocess.DEVNULL)
def ask(path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    kind = {"content-type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:8484" + path, data, kind)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        return json.load(reply)
deadline = time.monotonic() + PATIENCE_S
while True:
    try:
        ask("/ready")
        break
    except OSError:
        if time.monotonic() > deadline or daemon.poll() is not None:
            sys.exit("not ready")
        time.sleep(0.2)
body = {"messages": [{"role": "user", "content": "set a timer for ten minutes"}]}
print(ask("/v1/chat/completions", body)["choices"][0]["message"]["content"])
daemon.terminate()
sys.exit(daemon.wait(PATIENCE_S) not in (0, -15))
"""
# Seconds for a daemon to come up, here and on a processor that is emulated.
PATIENCE_S, EMULATED_S = 120.0, 900.0


def try_package(package: Path) -> int:
    """Print a table of the steps; 1 if one failed."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        print("this needs root and mmdebstrap: apt install mmdebstrap", file=sys.stderr)
        return 2
    architecture = _said("dpkg-deb", "--field", str(package), "Architecture")
    patience_s = PATIENCE_S
    if architecture != _said("dpkg", "--print-architecture"):
        patience_s = EMULATED_S
        if (lacking := _no_emulator(TARGETS[architecture])) is not None:
            print(lacking, file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="edgeagent-root-") as folder:
        root = Path(folder, "root")
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--architectures={architecture}",
            f"--include={PACKAGES}",
            "bookworm",
        ]
        if subprocess.run([*command, str(root)], check=False).returncode != 0:
            print("The new root could not be made; mmdebstrap says why above.", file=sys.stderr)
            return 2
        shutil.copy(package, root / "tmp" / "edgeagent.deb")
        with _kernel_files(root):
            return _steps(root, patience_s)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _no_emulator(target: Target) -> str | None:
    """Why programs for this processor cannot run here; None: they can."""
    has_emulator = Path(f"/proc/sys/fs/binfmt_misc/qemu-{target.processor}").exists()
    if has_emulator and shutil.which("arch-test") is not None:
        return None
    return (
        f"A package for {target.architecture} needs an emulator here: apt install qemu-user-static "
        "binfmt-support arch-test"
    )


def _steps(root: Path, patience_s: float) -> int:
    before = _files(root)
    settings = root / "etc/edgeagent/edgeagent.toml"
    n_failed = 0

    def step(name: str, *command: str, expects: str = "") -> None:
        nonlocal n_failed
        done = subprocess.run(
            ["chroot", str(root), *command],
            capture_output=True,
            text=True,
            timeout=5 * patience_s,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
        )
        is_good = done.returncode == 0 and expects in done.stdout
        n_failed += not is_good
        told = (done.stdout.strip().splitlines() or [""])[-1][:70]
        print(f"{'ok' if is_good else 'FAILED':<7}{name:<34}{told}", flush=True)
        if not is_good:
            print(done.stdout[-1500:], done.stderr[-1500:], sep="\n")

    def check(name: str, is_good: bool, told: str = "") -> None:
        nonlocal n_failed
        n_failed += not is_good
        print(f"{'ok' if is_good else 'FAILED':<7}{name:<34}{told}", flush=True)

    step("install", "dpkg", "-i", "/tmp/edgeagent.deb")
    step("version", "edgeagent", "--version", expects="edgeagent")
    step("key of the store", "edgeagent", "service", "make-key")
    enabled = [str(path.name) for path in root.glob("etc/systemd/system/*.wants/edgeagent*")]
    check("units are enabled", len(enabled) == 3, ", ".join(sorted(enabled)))
    check("units are valid", *_verify_units(root))
    step("doctor", "edgeagent", "doctor", expects="processor")
    question = f"PATIENCE_S = {patience_s}\n{QUESTION}"
    step("a question is answered", "python3", "-c", question, expects="timer")
    settings.write_text(settings.read_text() + "# mine\n")
    n_failed += print_trial(root, patience_s)
    step("install again", "dpkg", "-i", "--force-confold", "/tmp/edgeagent.deb")
    check("changed settings stay", "# mine" in settings.read_text())
    step("remove", "dpkg", "-r", "edgeagent")
    kept = [settings, root / "etc/edgeagent/store.key", *root.glob("var/lib/edgeagent/*")]
    check("data, key and settings stay", len(kept) > 2 and all(path.exists() for path in kept))
    check("the program is gone", not (root / "opt/edgeagent").exists())
    step("install after the removal", "dpkg", "-i", "/tmp/edgeagent.deb")
    step("purge", "dpkg", "-P", "edgeagent")
    for volume in read_image(FILE.read_text()).volumes:
        shutil.rmtree(root / volume.lstrip("/"), ignore_errors=True)  # ours, not the package's
    left = sorted(_files(root) - before)
    check("nothing is left", not left, " ".join(left[:5]))
    return 1 if n_failed else 0


def _verify_units(root: Path) -> tuple[bool, str]:
    """Whether systemd accepts the units, with the programs that they start."""
    if shutil.which("systemd-analyze") is None:
        return True, "not checked: systemd-analyze is not here"
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", *UNITS],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    # The root has no systemd of its own, and so none of the targets that units are ordered by.
    lines = [line for line in done.stderr.splitlines() if ".target not found" not in line]
    ours = [line for line in lines if "edgeagent" in line]
    return not ours, " ".join(ours)[:200]


def _files(root: Path) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, root)
        folders[:] = [
            name for name in folders if os.path.normpath(f"{here}/{name}") not in NOT_OURS
        ]
        found |= {os.path.normpath(f"{here}/{name}") for name in (*files, *folders)}
    return found


@contextmanager
def _kernel_files(root: Path) -> Iterator[None]:
    """/proc and /dev of this machine in the root, while it is used."""
    mounts = [("proc", "proc", ["-t", "proc"]), ("/dev", "dev", ["--rbind"])]
    done: list[Path] = []
    try:
        for source, name, options in mounts:
            subprocess.run(["mount", *options, source, str(root / name)], check=True)
            done.append(root / name)
        yield
    finally:
        for path in reversed(done):
            subprocess.run(["umount", "--recursive", "--lazy", str(path)], check=False)
