"""Builds /opt/edgeagent in a staging directory: a virtual environment without pip, with compiled modules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from scripts.packaging.configuration import ROOT

PLACE = Path("/opt/edgeagent")
# For processors with AVX2, and for 64-bit ARM. llama-cpp-python leaves kernels that are modules of their own
# (GGML_BACKEND_DL with GGML_CPU_ALL_VARIANTS) out of its wheel, and then no model can be loaded.
PORTABLE = "-DGGML_NATIVE=OFF"
SYSTEM_INFO = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


def build_tree(stage: Path, python: Path, extras: str, *, is_native: bool) -> None:
    """Fill `stage` with the environment of `python`, which the target must have at the same path.

    `is_native` compiles llama.cpp for this processor, or takes the wheel that pip keeps of that.
    """
    place = stage / PLACE.relative_to("/")
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", place], check=True)
    wheels = stage / "wheels"
    _run("-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels))
    (wheel,) = wheels.glob("*.whl")
    wanted = f"{wheel}[{extras}]" if extras else str(wheel)
    pip = ["-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    pip += ["--constraint", str(ROOT / "scripts" / "constraints.txt")]
    environment = dict(os.environ)
    if not is_native:
        environment["CMAKE_ARGS"] = f"{environment.get('CMAKE_ARGS', '')} {PORTABLE}".strip()
        _run(*pip, "--no-cache-dir", "llama-cpp-python", env=environment)
    _run(*pip, wanted, env=environment)
    told = subprocess.run(
        [place / "bin" / "python", "-c", SYSTEM_INFO], capture_output=True, text=True, check=True
    )
    if not has_kernels(told.stdout):
        raise SystemExit(
            "The llama.cpp that was built has no kernels for a processor: see CMAKE_ARGS."
        )
    _move_to_its_place(place)


def has_kernels(system_info: str) -> bool:
    """Whether llama.cpp names a processor's kernels, as in "CPU : SSE3 = 1 | AVX = 1"."""
    return "CPU :" in system_info


def _run(*arguments: str, env: dict[str, str] | None = None) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, env=env)


def _move_to_its_place(place: Path) -> None:
    """Let everything say where it will be installed, not where it was built."""
    for script in (place / "bin").iterdir():
        if script.is_symlink():
            continue
        if script.name.lower().startswith("activate"):
            script.unlink()
            continue
        text = script.read_bytes()
        script.write_bytes(text.replace(str(place).encode(), str(PLACE).encode()))
    config = place / "pyvenv.cfg"
    text = re.sub(r"(?m)^command = .*\n", "", config.read_text())
    config.write_text(text.replace(str(place), str(PLACE)))
    for record in place.glob("lib/python3*/site-packages/*.dist-info/direct_url.json"):
        record.unlink()  # the path of the wheel
    python = place / "bin" / "python"
    compiling = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    compiling += ["-s", str(place), "-p", str(PLACE), str(place / "lib")]
    subprocess.run([str(python), *compiling], check=False, capture_output=True)


def remaining_paths(place: Path) -> list[Path]:
    """Text files that still name the directory of the build."""
    named = str(place).encode()
    texts = [*place.glob("bin/*"), *place.glob("lib/python3*/site-packages/*.dist-info/*")]
    return [path for path in texts if path.is_file() and named in path.read_bytes()]
