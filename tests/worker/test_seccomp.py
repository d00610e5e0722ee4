"""The filter as the kernel runs it: a small interpreter of classic BPF, for both architectures."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from edgeagent.worker import system_calls
from edgeagent.worker.seccomp import Instruction, program

PID = 4321
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
MACHINES = list(system_calls.ARCHITECTURES)


def verdict(steps: list[Instruction], number: int, arguments: tuple[int, ...], audit: int) -> int:
    values = [a & (1 << 64) - 1 for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number, audit, 0, *values)
    at = accumulator = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x45: bool(accumulator & operand),
            }[code]
            at += yes if holds else no


def ask(machine: str, name: str, *arguments: int, may_fork: bool = False) -> int | None:
    table = system_calls.DENIED | system_calls.CHECKED | system_calls.FREQUENT
    position, audit = system_calls.ARCHITECTURES[machine]
    number = table[name][position]
    if number is None:
        return None
    return verdict(program(machine, PID, may_fork=may_fork), number, arguments, audit)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_table_gets_its_verdict(machine):
    for name in system_calls.DENIED:
        assert ask(machine, name) in (EPERM, None), name
    for name in system_calls.FREQUENT:
        assert ask(machine, name) in (ALLOW, None), name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("openat", (3, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
        ("openat", (3, 0, os.O_WRONLY), EPERM),
        ("openat", (3, 0, os.O_RDWR), EPERM),
        ("openat", (3, 0, os.O_RDONLY | os.O_CREAT), EPERM),
        ("openat", (3, 0, os.O_RDONLY | os.O_TRUNC), EPERM),
        ("openat2", (3, 0, 0, 24), ENOSYS),
        ("clone", (0x3D0F00,), ALLOW),  # what pthread_create asks for
        ("clone", (17,), EPERM),  # what fork asks for
        ("clone", (0x4111,), EPERM),  # and vfork
        ("clone3", (0, 88), ENOSYS),
        ("kill", (PID, 6), ALLOW),
        ("kill", (PID + 1, 0), EPERM),
        ("kill", (0, 9), EPERM),
        ("kill", (-1, 9), EPERM),
        ("tgkill", (PID, PID + 3, 6), ALLOW),
        ("tgkill", (1, PID, 6), EPERM),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (PID, 7), ALLOW),
        ("prlimit64", (1, 7), EPERM),
        ("setpriority", (0, 0, 5), ALLOW),
        ("setpriority", (0, 1, 5), EPERM),
        ("setpriority", (2, 0, 5), EPERM),  # all processes of a user
        ("sendto", (3, 1, 1, 0, 0, 0), ALLOW),
        ("sendto", (3, 1, 1, 0, 0x7FFF_0000_0000, 16), EPERM),
        ("sendto", (3, 1, 1, 0, 0x1000, 16), EPERM),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (1, 1 | 0o2000000), ALLOW),  # and close-on-exec
        ("socketpair", (1, 2), EPERM),
        ("socketpair", (1, 5), EPERM),
        ("lseek", (3, 0, 0), ALLOW),
        ("lseek", (2, 0, 0), EPERM),
        ("prctl", (15,), ALLOW),  # name a thread
        ("prctl", (1,), EPERM),
        ("prctl", (4, 1), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("fcntl", (3, 4), ALLOW),
        ("fcntl", (3, 8, 1), EPERM),
        ("arch_prctl", (0x1023, 18), EPERM),
        ("arch_prctl", (0x1003,), ALLOW),
    ],
)  # fmt: skip
def test_calls_are_told_apart_by_their_arguments(machine, name, arguments, expected):
    assert ask(machine, name, *arguments) in (expected, None)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_fork_server_forks_and_ends_its_children_and_has_no_more_rights_else(machine):
    assert ask(machine, "clone", 17, may_fork=True) == ALLOW
    assert ask(machine, "kill", PID + 1, 9, may_fork=True) == ALLOW
    for name in ("execve", "ptrace", "socket", "unlinkat", "pidfd_getfd"):
        assert ask(machine, name, may_fork=True) == EPERM


def test_calls_of_another_architecture_or_of_the_future_have_no_effect():
    _, audit = system_calls.ARCHITECTURES["x86_64"]
    steps = program("x86_64", PID)
    assert verdict(steps, 0, (), 0x40000003) == KILL  # 32-bit calls have other numbers
    assert verdict(steps, 0x40000000 | 41, (), audit) == EPERM  # and so has x32
    assert verdict(steps, system_calls.NEWEST + 1, (), audit) == ENOSYS
