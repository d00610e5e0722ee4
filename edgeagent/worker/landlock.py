"""Landlock: restricts a process to the files that it names, without privileges.

    version 1 (Linux 5.13)  files and directories        version 4 (6.7)   TCP bind and connect
    version 2 (5.19)        renaming between directories version 5 (6.10)  ioctl of devices
    version 3 (6.2)         truncation                   version 6 (6.12)  signals, abstract Unix sockets

From the first version on, the process cannot trace processes outside, which includes reading their
memory, environment and descriptors in /proc. Files that are open already stay open.
Source: Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# One number on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights over files that each version knows: version 1 has bits 0 to 12, then one bit each.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6

_REASONS = {
    errno.ENOSYS: "the kernel was built without Landlock, which Linux has since 5.13",
    errno.EOPNOTSUPP: "Landlock is switched off: add it to the kernel parameter lsm=",
}


def version(libc: ctypes.CDLL) -> int:
    """The version of Landlock that the kernel has; 0 where it has none. Sets ctypes' errno."""
    return max(0, int(libc.syscall(_CREATE, None, 0, _VERSION_FLAG)))


def reason() -> str:
    """Why the last call failed, with the way out. Uses ctypes' errno."""
    number = ctypes.get_errno()
    return _REASONS.get(number, os.strerror(number))


def restrict(libc: ctypes.CDLL, readable: Iterable[str | Path]) -> int:
    """Confine this thread, and those that it starts, to reading `readable`.

    A directory includes everything below it; paths that do not exist are ignored. Returns the version in
    force, 0 if nothing was restricted. Needs PR_SET_NO_NEW_PRIVS.
    """
    found = version(libc)
    if not found:
        return 0
    files = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= found)]
    network = _TCP_BIND_AND_CONNECT if found >= _NETWORK_SINCE else 0
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if found >= _SCOPES_SINCE else 0
    attributes = struct.pack("QQQ", files, network, scopes)
    size = 24 if scopes else 16 if network else 8
    ruleset = int(libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), 0))
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            with suppress(OSError):
                _allow(libc, ruleset, path)
        return found if libc.syscall(_RESTRICT, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str | Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
        rule = struct.pack("<Qi", rights, descriptor)  # packed in the kernel's header
        libc.syscall(_ADD, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
