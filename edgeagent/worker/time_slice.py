"""The time slice of the daemon's event loop, which is short: it works for a moment, and others compute
all the time.

A woken thread takes the place of one that computes at once if its slice is shorter, and else waits until
that has had its own, of 1 to 3 ms. The engine's threads compute on all cores between two tokens. A daemon
that waits sends a token in the middle of the next step, of which all threads then wait for the one whose core
it has; at once it does so between two steps.
Source: Linux 6.12, kernel/sched/fair.c (`PREEMPT_SHORT`) and sched_setattr(2), where `sched_runtime` is the
slice of an ordinary thread. Older kernels ignore it.
"""

from __future__ import annotations

import ctypes
import os
import platform

SLICE_NS = 100_000  # the least that Linux takes
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ORDINARY = 0  # SCHED_OTHER
_RESET_ON_FORK = 1  # children and threads get the usual slice


class _Attributes(ctypes.Structure):
    """`struct sched_attr` in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def shorten_time_slice() -> bool:
    """Give the calling thread a short time slice, not the threads and processes that it starts. Returns
    whether the kernel took it. A thread that an administrator gave another policy, or a higher priority,
    keeps what it has: what it starts would lose that."""
    number, nice = _SCHED_SETATTR.get(platform.machine()), os.getpriority(os.PRIO_PROCESS, 0)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER or nice < 0:
        return False
    wanted = _Attributes(
        ctypes.sizeof(_Attributes), _ORDINARY, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(number, 0, ctypes.byref(wanted), 0) == 0)
