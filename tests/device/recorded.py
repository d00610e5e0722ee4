"""Unpacks a recorded device tree, one TOML file, into a folder that `probe` can be given as root.

The format, kept small so that a tree can be read and written by hand:

    [files]     path = content. A range in the path ("cpu{0-3}") makes one file per number, and
                "{n}" in the content becomes it. A newline ends each file, as sysfs does.
    [nul]       path = list of strings, NUL terminated, as a device tree's properties are.
    [links]     path = target, a symbolic link; targets are made as folders if nothing is there.
    [auxv]      page_bytes = the page size, written into a real auxiliary vector.
    [[cpuinfo]] cpus = "0-3", text = one paragraph per number; without cpus it stands once.
"""

from __future__ import annotations

import re
import struct
import tomllib
from pathlib import Path

TREES = Path(__file__).parent / "trees"
NAMES = tuple(sorted(path.stem for path in TREES.glob("*.toml")))

_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


def unpack(name: str, folder: Path) -> Path:
    """Write the tree `name` below `folder` and return its root."""
    recorded = tomllib.loads((TREES / f"{name}.toml").read_text(encoding="utf-8"))
    root = folder / name
    for pattern, content in recorded.get("files", {}).items():
        for path, number in _expand(pattern):
            write(root, path, content.replace("{n}", number).strip("\n") + "\n")
    for path, strings in recorded.get("nul", {}).items():
        write(root, path, "".join(f"{string}\0" for string in strings))
    if "cpuinfo" in recorded:
        write(root, "/proc/cpuinfo", _cpuinfo(recorded["cpuinfo"]))
    if "auxv" in recorded:
        pairs = ((33, 0x7F4CA010E000), (6, recorded["auxv"]["page_bytes"]), (17, 100), (0, 0))
        blob = b"".join(struct.pack("@LL", *pair) for pair in pairs)
        _place(root, "/proc/self/auxv").write_bytes(blob)
    for pattern, target in recorded.get("links", {}).items():
        _link(_place(root, pattern), target)
    return root


def write(root: Path, path: str, text: str) -> None:
    """Put one file into a tree, replacing what is there."""
    _place(root, path).write_text(text, encoding="utf-8")


def _place(root: Path, path: str) -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _link(place: Path, target: str) -> None:
    # ".." is followed as the kernel would, through real folders, so they have to be there.
    (place.parent / target).resolve().mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _expand(pattern: str) -> list[tuple[str, str]]:
    found = _RANGE.search(pattern)
    if found is None:
        return [(pattern, "")]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [(pattern.replace(found[0], str(n)), str(n)) for n in numbers]


def _cpuinfo(blocks: list[dict[str, str]]) -> str:
    paragraphs: list[str] = []
    for block in blocks:
        for _, number in _expand(f"{{{block['cpus']}}}") if "cpus" in block else [("", "")]:
            paragraphs.append(block["text"].strip("\n").replace("{n}", number))
    return "\n\n".join(paragraphs) + "\n"
