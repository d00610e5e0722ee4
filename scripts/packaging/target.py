"""The processors that packages are for, and how wheels, compilers and files name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ELF = b"\x7fELF"
# The C library that the package depends on (`configuration.py`): wheels may need it or an older one.
OLDEST_GLIBC, NEWEST_GLIBC = 17, 34


@dataclass(frozen=True)
class Target:
    """`architecture` as Debian names it, `processor` as Python, CMake and GNU do; `elf_machine` is the number
    in the head of its programs."""

    architecture: str
    processor: str
    elf_machine: int

    @property
    def platforms(self) -> list[str]:
        """The tags of wheels that run on it, for pip."""
        versions = range(OLDEST_GLIBC, NEWEST_GLIBC + 1)
        tags = [f"manylinux_2_{version}_{self.processor}" for version in versions]
        return [f"linux_{self.processor}", f"manylinux2014_{self.processor}", *tags]

    @property
    def cmake_arguments(self) -> list[str]:
        """What lets CMake compile for it on another processor, with Debian's cross compilers."""
        tool = f"{self.processor}-linux-gnu"
        return [
            "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={self.processor}",
            f"-DCMAKE_C_COMPILER={tool}-gcc",
            f"-DCMAKE_CXX_COMPILER={tool}-g++",
        ]


TARGETS = {
    target.architecture: target
    for target in (Target("amd64", "x86_64", 62), Target("arm64", "aarch64", 183))
}


def foreign_files(place: Path, target: Target) -> Iterator[Path]:
    """Programs and libraries in `place` that are for other processors."""
    for path in place.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head.startswith(ELF) and int.from_bytes(head[18:20], "little") != target.elf_machine:
            yield path
