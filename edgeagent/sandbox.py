"""What a worker process gives up before it touches anything untrusted.

Linux only, no privileges needed: it dies with its parent, is the kernel's first choice when memory
runs out, cannot gain privileges, and cannot open a socket of any family (seccomp). Where the kernel
refuses one of these, the worker says so in its log and goes on. Nor can it use AMX tiles (`_ASK_FOR_TILES`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import platform
import resource
import signal
import struct
from pathlib import Path

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_X32_BIT = 0x40000000

# Architecture audit number and the calls that reach other hosts or processes: socket, connect,
# bind, listen, ptrace, process_vm_readv, process_vm_writev, io_uring_setup.
_CALLS = {
    "x86_64": (0xC000003E, (41, 42, 49, 50, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 117, 270, 271, 425)),
}
# arch_prctl(ARCH_REQ_XCOMP_PERM), by which a program asks for AMX tiles, on x86-64. GCC 12 leaves the rows
# out of the tile configuration that llama.cpp loads (`_tile_loadconfig` tells it of 8 bytes only), and the
# first tile instruction ends the process with SIGILL; refused, llama.cpp computes with AVX-512.
_ARCH_PRCTL, _ASK_FOR_TILES = 158, 0x1023


def enter(
    *,
    oom_score_adj: int = 500,
    address_space_bytes: int | None = None,
    parent: int | None = None,
) -> None:
    """Confine this process for good. Call before threads start: filters are per thread. Where `parent`,
    the process that it is to die with, has ended already, it ends here."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not _deny_calls(libc):
        logger.warning(
            "sandbox_incomplete part=seccomp errno=%s", errno.errorcode.get(ctypes.get_errno())
        )


def _deny_calls(libc: ctypes.CDLL) -> bool:
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    audit, calls = known
    checks = [_JUMP_SET, *(_JUMP_EQUAL for _ in calls)]
    # The x32 calls of x86-64 are the same calls under other numbers.
    values = [_X32_BIT, *calls]
    tiles = []
    if platform.machine() == "x86_64":
        tiles = [
            (_JUMP_EQUAL, 0, 2, _ARCH_PRCTL),
            (_LOAD, 0, 0, 16),  # the first argument
            (_JUMP_EQUAL, 1, 0, _ASK_FOR_TILES),
        ]
    n_left = len(checks) + len(tiles)
    program = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        *(
            (check, n_left - i, 0, v)
            for i, (check, v) in enumerate(zip(checks, values, strict=True))
        ),
        *tiles,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    fprog = ctypes.create_string_buffer(head, len(head))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0) == 0)


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process (None: this one), from /proc; 0 for one that has ended."""
    try:
        statm = Path(f"/proc/{pid or 'self'}/statm").read_text()
    except OSError:
        return 0
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
