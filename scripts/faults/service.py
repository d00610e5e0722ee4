"""The service under a real systemd: installed, asked, killed, stopped, upgraded, removed, in a container.

    python scripts/faults/service.py [--root DIR] [--kills N] [--restarts N]

Boots a small Debian with systemd as its first process (`mmdebstrap` and `systemd-nspawn`, as root), installs
this checkout as a wheel beside the libraries of this environment, and runs what systemd/README.md gives
(`service_trial.py`). Every fault is asked about through the socket: what a client sees counts. Prints a table
and leaves the journal in DIR/journal.log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,libgomp1,libstdc++6"
# Landlock is younger than the list of system calls that this nspawn lets through.
CALLS = "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp"
UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/opt/edgeagent/bin/python /opt/trial.py {kills} {restarts}
StandardOutput=file:/trial.log
StandardError=file:/trial.log
ExecStopPost=/bin/sh -c "journalctl -u edgeagent* --no-pager > /journal.log"
ExecStopPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=default.target
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, help="system tree, kept for the next run; default: a temporary one"
    )
    parser.add_argument("--kills", type=int, default=5, help="kills of the daemon and of a worker")
    parser.add_argument("--restarts", type=int, default=5, help="restarts under load")
    options = parser.parse_args()
    for program in ("mmdebstrap", "systemd-nspawn"):
        if shutil.which(program) is None:
            print(
                f"{program} is missing: apt install mmdebstrap systemd-container", file=sys.stderr
            )
            return 2
    with tempfile.TemporaryDirectory(prefix="edgeagent-service-") as scratch:
        root = options.root or Path(scratch, "root")
        if not (root / "etc").is_dir():
            print("Making a small Debian ...", file=sys.stderr)
            command = [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={PACKAGES}",
                "bookworm",
                str(root),
            ]
            subprocess.run(command, check=True)
        install(root, Path(scratch), options.kills, options.restarts)
        boot(root)
        return report(root)


def install(root: Path, scratch: Path, kills: int, restarts: int) -> None:
    """Put this checkout and the trial into the tree. The libraries are those of this environment."""
    place = root / "opt" / "edgeagent"
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run(
        ["chroot", str(root), "python3", "-m", "venv", "--without-pip", "/opt/edgeagent"],
        check=True,
    )
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = scratch.glob("*.whl")
    (site,) = place.glob("lib/python3*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "libraries.pth").write_text("/opt/libraries\n")
    command = place / "bin" / "edgeagent"
    command.write_text("#!/opt/edgeagent/bin/python\nfrom edgeagent.cli.main import main\nmain()\n")
    command.chmod(0o755)
    (root / "opt" / "libraries").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("service_trial.py"), root / "opt" / "trial.py")
    units = root / "etc" / "systemd" / "system"
    (units / "trial.service").write_text(UNIT.format(kills=kills, restarts=restarts))
    for name in ("trial.log", "journal.log"):
        (root / name).unlink(missing_ok=True)
    subprocess.run(
        ["systemctl", f"--root={root}", "enable", "trial.service"], check=True, capture_output=True
    )
    subprocess.run(
        ["systemctl", f"--root={root}", "set-default", "multi-user.target"],
        check=True,
        capture_output=True,
    )


def boot(root: Path) -> None:
    libraries = sysconfig.get_paths()["purelib"]
    command = [
        "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "-D", str(root),
        f"--bind-ro={libraries}:/opt/libraries", f"--system-call-filter={CALLS}",
    ]  # fmt: skip
    with (root / "boot.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=1800)


def report(root: Path) -> int:
    lines = (root / "trial.log").read_text().splitlines()
    rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
    print("| what | N | failures | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['n']} | {row['failures']} | {row['note']} |")
    others = [line for line in lines if not line.startswith("ROW ")]
    if others:
        print("\n".join(others[-20:]), file=sys.stderr)
    return 1 if others or not rows or any(row["failures"] for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
