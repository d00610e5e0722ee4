"""llama-cpp-python compiled for every processor of an architecture, on this one or for another.

Compiling takes minutes, so wheels are kept in .cache/wheels, by what they were compiled from.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.packaging.configuration import ROOT
from scripts.packaging.target import Target

# For processors with AVX2, and for 64-bit ARM. llama-cpp-python leaves kernels that are modules of their own
# (GGML_BACKEND_DL with GGML_CPU_ALL_VARIANTS) out of its wheel, and then no model can be loaded.
PORTABLE = "-DGGML_NATIVE=OFF"
KEPT = ROOT / ".cache" / "wheels"
CONSTRAINTS = ROOT / "scripts" / "constraints.txt"


def engine_wheel(target: Target, *, is_foreign: bool) -> Path:
    """The wheel for `target`; `is_foreign`: not the processor of this machine. CMAKE_ARGS are added, e.g.
    -DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod for newer ARM processors."""
    told = os.environ.get("CMAKE_ARGS", "")
    arguments = [PORTABLE, *(target.cmake_arguments if is_foreign else ()), told]
    cmake_args = " ".join(arguments).strip()
    folder = KEPT / wheel_key(engine_version(), target, cmake_args)
    if wheels := list(folder.glob("*.whl")):
        return wheels[0]
    if is_foreign and shutil.which(f"{target.processor}-linux-gnu-g++") is None:
        name = f"g++-{target.processor}-linux-gnu"
        raise SystemExit(f"There is no compiler for {target.architecture}: apt install {name}")
    with tempfile.TemporaryDirectory(prefix="edgeagent-wheel-") as built:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"]
        command += ["--constraint", str(CONSTRAINTS), "--wheel-dir", built, "llama-cpp-python"]
        subprocess.run(command, check=True, env=os.environ | {"CMAKE_ARGS": cmake_args})
        (wheel,) = Path(built).glob("*.whl")
        if is_foreign:
            wheel = _named_for(wheel, target)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{wheel.name}.partial"
        shutil.copy(wheel, partial)
        return partial.rename(folder / wheel.name)


def engine_version() -> str:
    found = re.search(r"(?m)^llama[-_]cpp[-_]python==(\S+)$", CONSTRAINTS.read_text())
    assert found is not None
    return found[1]


def wheel_key(version: str, target: Target, cmake_args: str) -> str:
    """The name of the folder that keeps the wheel."""
    digest = hashlib.sha256(f"{version} {cmake_args}".encode()).hexdigest()
    return f"{target.architecture}-{digest[:12]}"


def _named_for(wheel: Path, target: Target) -> Path:
    """Let a wheel that was compiled for `target` say so: builds name the processor they ran on."""
    command = [sys.executable, "-m", "wheel", "tags", "--remove"]
    command += ["--platform-tag", f"linux_{target.processor}", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    (named,) = wheel.parent.glob("*.whl")
    return named
