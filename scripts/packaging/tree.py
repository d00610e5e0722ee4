"""Builds /opt/edgeagent in a staging directory: a virtual environment without pip, with compiled modules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.packaging.configuration import ROOT
from scripts.packaging.engine_wheel import CONSTRAINTS, engine_wheel
from scripts.packaging.target import Target, foreign_files

PLACE = Path("/opt/edgeagent")
SYSTEM_INFO = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
NO_KERNELS = "The llama.cpp that was built has no kernels for a processor: see CMAKE_ARGS."


def build_tree(
    stage: Path, python: Path, extras: str, target: Target, *, is_foreign: bool, is_native: bool
) -> None:
    """Fill `stage` with the environment of `python`, which the target must have at the same path.

    `is_native` compiles llama.cpp for this processor, or takes the wheel that pip keeps of that.
    `is_foreign`: the target has another processor, and Python modules come from wheels for it.
    """
    place = stage / PLACE.relative_to("/")
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", place], check=True)
    wheels = stage / "wheels"
    _run("-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels))
    (wheel,) = wheels.glob("*.whl")
    wanted = [f"{wheel}[{extras}]" if extras else str(wheel)]
    if not is_native:
        wanted.append(str(engine_wheel(target, is_foreign=is_foreign)))
    pip = ["install", "--quiet", "--constraint", str(CONSTRAINTS)]
    if is_foreign:
        _install_foreign(place, [*pip, *wanted], target)
    else:
        _run("-m", "pip", "--python", str(place / "bin" / "python"), *pip, *wanted)
    _check_engine(place, is_foreign=is_foreign)
    if foreign := list(foreign_files(place, target)):
        raise SystemExit(f"These are not for {target.architecture}: {foreign[:3]}")
    _move_to_its_place(place)


def has_kernels(system_info: str) -> bool:
    """Whether llama.cpp names a processor's kernels, as in "CPU : SSE3 = 1 | AVX = 1"."""
    return "CPU :" in system_info


def _check_engine(place: Path, *, is_foreign: bool) -> None:
    """Raises: SystemExit where no model could be loaded. A foreign one cannot be asked."""
    if is_foreign:
        if not [*place.glob("lib/python3*/site-packages/llama_cpp/lib/libggml-cpu.so")]:
            raise SystemExit(NO_KERNELS)
        return
    command = [str(place / "bin" / "python"), "-c", SYSTEM_INFO]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    if not has_kernels(told.stdout):
        raise SystemExit(NO_KERNELS)


def _install_foreign(place: Path, pip: list[str], target: Target) -> None:
    """pip does not install for another processor into an environment, but into a folder; programs then lie
    below it."""
    (site,) = place.glob("lib/python3*/site-packages")
    version = site.parent.name.removeprefix("python")
    options = ["--target", str(site), "--upgrade", "--no-compile", "--only-binary", ":all:"]
    options += ["--implementation", "cp", "--python-version", version]
    for abi in (f"cp{version.replace('.', '')}", "abi3", "none"):
        options += ["--abi", abi]
    for platform in target.platforms:
        options += ["--platform", platform]
    _run("-m", "pip", *pip, *options)
    for program in (site / "bin").iterdir():
        text = program.read_bytes().replace(sys.executable.encode(), f"{PLACE}/bin/python".encode())
        program.write_bytes(text)
        program.rename(place / "bin" / program.name)
    shutil.rmtree(site / "bin")
    for record in site.glob("*.dist-info/RECORD"):
        record.write_text(re.sub(r"(?m)^\.\./\.\./bin/", "../../../bin/", record.read_text()))


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


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
    """Text files that still name the directory of the build, or the Python that built it."""
    named = (str(place).encode(), f"{sys.prefix}/".encode())
    texts = [*place.glob("bin/*"), *place.glob("lib/python3*/site-packages/*.dist-info/*")]
    return [
        path
        for path in texts
        if path.is_file()
        and not path.is_symlink()
        and any(map(path.read_bytes().__contains__, named))
    ]
