"""The sandbox that a worker process enters before it reads anything untrusted.

Linux only; needs no privileges. In this order:

    1. The process dies with its parent, and the kernel kills it first when memory runs out.
    2. It leaves no core file, and other processes of its user cannot read its memory (not dumpable).
    3. It drops its capabilities and cannot gain privileges again.
    4. Landlock: it can read its libraries and the files that it was given, and write nothing.
    5. seccomp: no sockets, no processes, no seldom used parts of the kernel (`seccomp.py`).

If the kernel lacks a layer, the result and the log say so, and the other layers are still in force. Layers 4
and 5 overlap on purpose: without Landlock the process can read files, but not write or execute any.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from edgeagent.worker import landlock, seccomp
from edgeagent.worker.non_dumpable import keep_private

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_V3 = 0x20080522
# A daemon that runs as root may serve models that only their owner may read. Landlock limits which.
_CAP_DAC_READ_SEARCH = 2

# Directories of C libraries, and files that the C library and Python read while they run.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_LOOKED_UP = (
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip

# Kept open, because a confined process cannot open them again. Each read returns what is current.
_own_statm: int | None = None
_own_maps: int | None = None


class SandboxLayers(msgspec.Struct, frozen=True, kw_only=True):
    """The layers that are in force in a confined process.

    `landlock` is the version in force, 0 for none. `n_threads` counts the threads that were running when the
    process confined itself; Landlock applies to the calling thread only. `missing` names what is not in
    force, with the reason.
    """

    no_new_privs: bool
    not_dumpable: bool
    seccomp: bool
    landlock: int
    n_threads: int
    missing: dict[str, str] = {}


def enter(
    *,
    read: Iterable[str | Path] = (),
    may_import: bool = True,
    may_fork: bool = False,
    oom_score_adj: int | None = 500,
    address_space_bytes: int | None = None,
    parent: int | None = None,
    asks_mappings: bool = False,
) -> SandboxLayers:
    """Confine this process permanently. Call it before threads start: Landlock applies per thread.

    `read` lists files and directories that it may still read, besides the libraries of Python and C, which
    `may_import=False` excludes. With `may_fork` it may fork processes, without executing programs, and end
    them. If `parent`, the process that it shall die with, has ended already, this process ends here. With
    `asks_mappings` it may call `private_mappings` and `file_mappings`.
    """
    global _own_statm, _own_maps
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(0)
    if oom_score_adj is not None:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj))
    _own_statm = _opened("statm")
    _own_maps = _opened("maps") if asks_mappings else None
    time.tzset()  # reads the time zone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    n_threads = _n_threads()
    readable = [
        *map(os.path.abspath, read),
        *(_importable() if may_import else ("/etc/localtime",)),
    ]
    not_dumpable = keep_private()
    _drop_capabilities(libc, keep_reading=bool(read))
    no_new_privs = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    version = landlock.restrict(libc, readable)
    missing = {} if version else {"landlock": landlock.reason()}
    wrong = seccomp.install(libc, may_fork=may_fork)
    if wrong is not None:
        missing["seccomp"] = wrong
    if n_threads > 1:
        missing["threads"] = f"{n_threads - 1} ran already"
    for part, why in missing.items():
        logger.warning("sandbox_incomplete part=%s reason=%r", part, why)
    return SandboxLayers(
        no_new_privs=no_new_privs,
        not_dumpable=not_dumpable,
        seccomp=wrong is None,
        landlock=version,
        n_threads=n_threads,
        missing=missing,
    )


def _drop_capabilities(libc: ctypes.CDLL, *, keep_reading: bool) -> None:
    """Drop all capabilities, whether of root or granted by a service manager."""
    if os.geteuid() == 0:
        for number in range(64):
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITIES_V3, 0)
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held) != 0:
        return
    kept = (struct.unpack("6I", held.raw)[1] & (1 << _CAP_DAC_READ_SEARCH)) if keep_reading else 0
    libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0))


def _importable() -> Iterator[Path]:
    """The paths that imports and dynamic loading may need: Python's directories, loaded packages, libraries.

    A directory on `sys.path` that may hold other files than packages (a checkout, the current directory) is
    not among them; its packages are, if any of their modules is loaded.
    """
    roots = [Path(os.__file__).parent]
    roots += [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    roots += [path for path in map(Path, _LIBRARIES) if path.exists()]
    yield from (*roots, *map(Path, _LOOKED_UP))
    inside = tuple(f"{root.resolve()}/" for root in roots)
    seen = set()
    for name, module in tuple(sys.modules.items()):
        top = sys.modules.get(name.partition(".")[0], module)
        file = getattr(top, "__file__", None)
        if not isinstance(file, str) or file in seen:
            continue
        seen.add(file)
        path = Path(file).resolve()
        if not str(path).startswith(inside):
            yield path.parent if path.name == "__init__.py" else path
    yield from (Path(file) for file in _mapped_files() if not file.startswith(inside))


def _mapped_files() -> set[str]:
    """The files that are mapped into this process: the interpreter and shared libraries."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/maps").read_text().splitlines()
        fields = [line.split(None, 5) for line in lines]
        return {f[5] for f in fields if len(f) == 6 and "x" in f[1] and f[5].startswith("/")}
    return set()


def _n_threads() -> int:
    with contextlib.suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir()))
    return 1


def _opened(name: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    return None


def private_mappings() -> list[tuple[int, int]]:
    """The addresses, first and end, of the memory that this process has for itself alone: no file, no heap,
    no stack of the first thread. Empty where `enter` was not told so, and where the kernel does not tell."""
    return [
        addresses for addresses, rights, inode, name in _mappings()
        if rights == b"rw-p" and inode == 0 and not name
    ]  # fmt: skip


def file_mappings(path: str) -> list[tuple[int, int]]:
    """The addresses where a file is mapped for reading. Empty where `private_mappings` is."""
    file = Path(path).stat().st_ino
    return [
        addresses for addresses, rights, inode, _ in _mappings()
        if inode == file and rights.startswith(b"r--")
    ]  # fmt: skip


def _mappings() -> Iterator[tuple[tuple[int, int], bytes, int, bytes]]:
    """Addresses, rights, inode and name of each mapping."""
    if _own_maps is None:
        return
    with contextlib.suppress(OSError), os.fdopen(_own_maps, "rb", closefd=False) as maps:
        maps.seek(0)
        for line in maps:
            addresses, rights, _, _, inode, *name = line.split(None, 5)
            start, end = addresses.split(b"-")
            yield (int(start, 16), int(end, 16)), rights, int(inode), b"".join(name)


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process (None: this one), from /proc; 0 for one that has ended."""
    if pid is None and _own_statm is not None:
        return resident(_own_statm)
    try:
        statm = Path(f"/proc/{pid or 'self'}/statm").read_bytes()
    except OSError:
        return 0
    return _resident(statm)


def resident(statm: int) -> int:
    """Resident memory by the open descriptor of a `statm` file; 0 for a process that has ended."""
    try:
        return _resident(os.pread(statm, 256, 0))
    except OSError:
        return 0


def _resident(statm: bytes) -> int:
    fields = statm.split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0
