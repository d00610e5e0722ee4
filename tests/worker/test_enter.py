"""What a confined process cannot do any more. Each in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ENTER = "import ctypes, errno, os, socket\nfrom edgeagent.worker import confinement\nconfinement.enter()\n"
TILES = (
    ENTER
    + """
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(158, 0x1023, 18) == -1 and ctypes.get_errno() == errno.EPERM
base = ctypes.c_uint64()
assert libc.syscall(158, 0x1003, ctypes.byref(base)) == 0, "other uses of the call are not refused"
"""
)
SOCKETS = (
    ENTER
    + """
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        socket.socket(family)
    except PermissionError:
        continue
    raise SystemExit(f"a socket of {family} was opened")
left, right = socket.socketpair()
left.send(b"x")
assert right.recv(1) == b"x"
"""
)


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_socket_can_be_opened_and_those_that_are_open_work():
    run(SOCKETS)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is of x86-64")
def test_tiles_of_amx_are_not_to_be_had():
    run(TILES)


def test_one_whose_parent_has_ended_already_ends_too():
    code = "import os\nfrom edgeagent.worker import confinement\n"
    code += "confinement.enter(parent={})\nprint('goes on')\n"
    for parent, said in (("os.getppid()", "goes on\n"), ("os.getppid() + 1", "")):
        command = [sys.executable, "-c", code.format(parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == said
