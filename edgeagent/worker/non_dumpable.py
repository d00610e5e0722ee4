"""Keeps other processes of the same user from reading a process that holds secrets."""

from __future__ import annotations

import ctypes

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def keep_private() -> bool:
    """Keep other processes of this user from reading this one's memory, environment and descriptors.

    Files in /proc/self then belong to root, and no core file is written. An administrator with
    CAP_SYS_PTRACE can still read it. True if it is in force.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def is_private() -> bool:
    """Whether `keep_private` is in force for this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0)
