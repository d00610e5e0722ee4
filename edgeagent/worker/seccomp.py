"""The seccomp filter: system calls that a confined process cannot use any more.

A filter is a program of the kernel's classic BPF that sees a call's number and its arguments as plain
numbers (pointers are not followed). Most calls are refused whatever their arguments are
(`system_calls.DENIED`); these are refused by argument:

    clone               anything but a thread              open, openat    for writing or creating
    kill, tgkill, ...   any process but this one           sendto          with an address
    prlimit64, ...      any process but this one           socketpair      anything but a stream
    prctl, fcntl, ioctl the requests named below           lseek           of standard streams (logs)

Refused calls fail with EPERM; calls newer than the table, `clone3` and `openat2` (whose arguments are
behind pointers) fail with ENOSYS, at which C libraries fall back.
Source: Documentation/userspace-api/seccomp_filter.rst; seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

from edgeagent.worker import system_calls

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _ABOVE, _ANY_BIT = 0x15, 0x25, 0x45
_DENY = _ERRNO | errno.EPERM
_MISSING = _ERRNO | errno.ENOSYS
_NUMBER, _ARCHITECTURE = 0, 4
_X32_BIT = 0x40000000

_CLONE_THREAD = 0x00010000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0x400000  # the last: __O_TMPFILE
_SOCK_STREAM, _SOCK_TYPE_MASK = 1, 0xF
# prctl: outlive the parent, be dumpable (readable by others of this user), name a tracer, move the heap.
_PRCTL_REQUESTS = (1, 4, 0x59616D61, 35)
# ioctl: type into the terminal (TIOCSTI, TIOCLINUX), choose who gets signals (FIOSETOWN, SIOCSPGRP).
_IOCTL_REQUESTS = (0x5412, 0x541C, 0x8901, 0x8902)
# fcntl: have the kernel send a signal of one's choice to another process (F_SETOWN, F_SETSIG, F_SETOWN_EX).
_FCNTL_REQUESTS = (8, 10, 15)
# arch_prctl(ARCH_REQ_XCOMP_PERM), by which a program asks for AMX tiles, on x86-64. GCC 12 leaves the rows
# out of the tile configuration that llama.cpp loads (`_tile_loadconfig` tells it of 8 bytes only), and the
# first tile instruction ends the process with SIGILL; refused, llama.cpp computes with AVX-512.
_ASK_FOR_TILES = 0x1023

# Code, offset of the jump where it holds, offset where it does not, operand.
Instruction = tuple[int, int, int, int]


def _argument(index: int, *, high: bool = False) -> Instruction:
    """Load half of an argument; both architectures are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _decide(test: int, operand: int, *, deny: bool) -> list[Instruction]:
    """End with one decision where `test` holds and with the other where it does not."""
    yes, no = (_DENY, _ALLOW) if deny else (_ALLOW, _DENY)
    return [(test, 0, 1, operand), (_RETURN, 0, 0, yes), (_RETURN, 0, 0, no)]


def _only(index: int, *values: int) -> list[Instruction]:
    """Allow a call whose argument is one of `values`."""
    n = len(values)
    tests = [(_EQUAL, n - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]


def _except(index: int, *values: int) -> list[Instruction]:
    """Refuse a call whose argument is one of `values`."""
    n = len(values)
    tests = [(_EQUAL, n - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]


def _checked(pid: int) -> dict[str, list[Instruction]]:
    """The calls that depend on their arguments, for the process `pid`. Each block ends with a decision."""
    of_itself = _only(0, 0, pid)
    return {
        "open": [_argument(1), *_decide(_ANY_BIT, _WRITES, deny=True)],
        "openat": [_argument(2), *_decide(_ANY_BIT, _WRITES, deny=True)],
        "openat2": [(_RETURN, 0, 0, _MISSING)],
        "clone": [_argument(0), *_decide(_ANY_BIT, _CLONE_THREAD, deny=False)],
        "clone3": [(_RETURN, 0, 0, _MISSING)],
        "sendto": [
            _argument(4),
            (_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _DENY),
            _argument(4, high=True),
            *_decide(_EQUAL, 0, deny=False),
        ],
        "socketpair": [
            _argument(1),
            (_AND, 0, 0, _SOCK_TYPE_MASK),
            *_decide(_EQUAL, _SOCK_STREAM, deny=False),
        ],
        "lseek": [_argument(0), *_decide(_ABOVE, 2, deny=False)],
        "kill": _only(0, pid),
        "tkill": _only(0, pid),
        "tgkill": _only(0, pid),
        "sched_setaffinity": of_itself,
        "sched_setscheduler": of_itself,
        "sched_setparam": of_itself,
        "sched_setattr": of_itself,
        "prlimit64": of_itself,
        "setpriority": [_argument(0), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _DENY), *_only(1, 0, pid)],
        "prctl": _except(0, *_PRCTL_REQUESTS),
        "ioctl": _except(1, *_IOCTL_REQUESTS),
        "fcntl": _except(1, *_FCNTL_REQUESTS),
        "arch_prctl": _except(0, _ASK_FOR_TILES),
    }


# Calls that the fork server may use in addition; its children confine themselves further.
_OF_A_PARENT = ("clone", "kill", "prctl")


def program(machine: str, pid: int, *, may_fork: bool = False) -> list[Instruction]:
    """The filter for the process `pid` on an architecture that is known. Pure."""
    position, audit = system_calls.ARCHITECTURES[machine]

    def numbers(calls: Mapping[str, system_calls.Numbers]) -> dict[str, int]:
        found = {name: pair[position] for name, pair in calls.items()}
        return {name: number for name, number in found.items() if number is not None}

    steps: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # The x32 calls of x86-64 are the same calls under other numbers.
        (_ANY_BIT, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _DENY),
    ]
    for number in numbers(system_calls.FREQUENT).values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_ABOVE, 0, 1, system_calls.NEWEST), (_RETURN, 0, 0, _MISSING)]
    for number in numbers(system_calls.DENIED).values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    blocks = _checked(pid)
    for name, number in numbers(system_calls.CHECKED).items():
        if not (may_fork and name in _OF_A_PARENT):
            steps += [(_EQUAL, 0, len(blocks[name]), number), *blocks[name]]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def install(libc: ctypes.CDLL, *, may_fork: bool = False) -> str | None:
    """Put the filter on this process. `PR_SET_NO_NEW_PRIVS` must be set.

    It applies to all threads if the kernel supports that (Linux 3.17), otherwise to the calling thread and
    those that it starts. Returns the reason if the filter could not be installed.
    """
    machine = platform.machine()
    if machine not in system_calls.ARCHITECTURES:
        return f"no table of system calls for {machine}"
    return _load(libc, machine, program(machine, os.getpid(), may_fork=may_fork))


def refuse_tiles() -> None:
    """Make this process compute without AMX tiles, without other restrictions. For tools that load models."""
    machine = platform.machine()
    if machine == "x86_64":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        number, block = 158, _except(0, _ASK_FOR_TILES)
        steps = [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, len(block), number), *block]
        _load(libc, machine, [*steps, (_RETURN, 0, 0, _ALLOW)])


def _load(libc: ctypes.CDLL, machine: str, steps: list[Instruction]) -> str | None:
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(buffer))
    fprog = ctypes.create_string_buffer(head, len(head))
    if libc.syscall(_SECCOMP_CALL[machine], _SECCOMP_SET_MODE_FILTER, _TSYNC, fprog) == 0:
        return None
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0) == 0:
        return None
    return os.strerror(ctypes.get_errno())
