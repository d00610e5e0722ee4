"""The files of /proc, /sys, /dev and /etc under one configurable root; reading them never raises.

A recorded tree in a test and the live machine use the same code; the few facts that need a system call are
only requested if `is_live`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# A sysfs file is at most one page. /proc/cpuinfo and mountinfo grow with the machine: 1.5 KB per CPU.
MAX_READ_BYTES = 4 * 1024 * 1024
# One read of /proc/sys must not request more than the kernel can allocate at once (4 MiB on x86):
# it fails with ENOMEM instead of returning the few bytes there are.
_CHUNK_BYTES = 64 * 1024

_NUMBERS = re.compile(r"(\d+)")


class SystemFiles:
    """Read-only view of a system tree; any thread may use one; it keeps no file open.

    `notes` collects, in plain words, what could not be found out. Probing code adds a note if a missing
    file changes a decision, not for every file that a kernel may lack.
    """

    def __init__(self, root: Path) -> None:
        # realpath: recorded trees may be behind a symlink (macOS /tmp), and link targets are compared.
        self.root = Path(os.path.realpath(root))
        self.is_live = self.root == Path("/")
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Record something unknown or surprising, once."""
        if text not in self.notes:
            self.notes.append(text)

    def path(self, name: str) -> Path:
        """The path of `name` ("/proc/cpuinfo" or "proc/cpuinfo") under the root."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether `name` exists (a dangling link does not)."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def blob(self, name: str) -> bytes | None:
        """The first MAX_READ_BYTES of a file, or None if it cannot be read."""
        try:
            with self.path(name).open("rb", buffering=0) as file:
                blob = b""
                while len(blob) < MAX_READ_BYTES and (chunk := file.read(_CHUNK_BYTES)):
                    blob += chunk
                return blob
        except (OSError, ValueError):  # ValueError: a NUL in a name that came from a file
            return None

    def text(self, name: str) -> str | None:
        """The text of a file without surrounding blanks; None if it is missing, unreadable or empty.

        Device-tree strings end in NUL, and lists of them are separated by NUL: those become newlines.
        """
        blob = self.blob(name)
        if blob is None:
            return None
        return blob.decode("utf-8", "replace").replace("\0", "\n").strip() or None

    def lines(self, name: str) -> list[str]:
        """The lines of a file; empty if it cannot be read."""
        return (self.text(name) or "").splitlines()

    def number(self, name: str, base: int = 10) -> int | None:
        """The integer in a file; None if the file is missing or contains anything else."""
        return parse_int(self.text(name), base)

    def names(self, folder: str, pattern: str = "*") -> list[str]:
        """Names in a folder matching a glob, in natural order (cpu2 before cpu10)."""
        try:
            found = [entry.name for entry in self.path(folder).glob(pattern)]
        except (OSError, ValueError):
            return []
        return sorted(found, key=_natural)

    def link_target(self, name: str) -> str | None:
        """The final target of a link as a path inside the root ("/devices/..."); None if there is none.

        A link out of a recorded tree has no target, so that a test cannot read the host.
        """
        path = self.path(name)
        try:
            real = Path(os.path.realpath(path, strict=True))
        except (OSError, ValueError):
            return None
        if not real.is_relative_to(self.root):
            return None
        return "/" + str(real.relative_to(self.root))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in _NUMBERS.split(name)]


def parse_int(text: str | None, base: int = 10) -> int | None:
    """An integer of at most 20 characters (64 bits), or None.

    The limit matters: Python raises an exception for thousands of digits.
    """
    if text is None or len(text) > 20:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def parse_cpulist(text: str | None) -> frozenset[int] | None:
    """The kernel's "0-3,8,10-11" as a set; None if missing or malformed.

    Source: bitmap list format, https://docs.kernel.org/admin-guide/cputopology.html
    """
    if text is None or not text.strip():
        return None
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = parse_int(first), parse_int(last or first)
        if low is None or high is None or not 0 <= low <= high <= 65_535:
            return None
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def parse_fields(lines: list[str], separator: str = ":") -> dict[str, str]:
    """ "Key : value" lines as a dict; the first of a repeated key counts."""
    fields: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        if found and key.strip():
            fields.setdefault(key.strip(), value.strip())
    return fields
