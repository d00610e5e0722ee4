"""What a worker that was taken over might try, from inside the confinement.

    python -m tests.worker.attempts TARGETS.json [--without-landlock]

TARGETS.json names a store key, a database, a state and a models directory, the daemon's and a sibling's
process id. The process confines itself as a worker does and prints one JSON object: attempt -> outcome,
which is an errno's name, or "reached". `--without-landlock` shows what is left on a kernel without it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeagent.worker import confinement, landlock, system_calls

REFUSED = {"EPERM", "EACCES", "ENOSYS"}
# What only Landlock keeps away, and since which kernel: reading files, and what names in /proc tell.
NEEDS_LANDLOCK = "Linux 5.13 with Landlock"

LIBC = ctypes.CDLL(None, use_errno=True)
TABLE = system_calls.DENIED | system_calls.CHECKED
POSITION = system_calls.ARCHITECTURES.get(platform.machine(), (0, 0))[0]
BUFFER = ctypes.create_string_buffer(4096)


def call(name: str, *arguments: Any) -> int:
    """A system call by its name. Raises: OSError."""
    number = TABLE[name][POSITION]
    if number is None:
        raise OSError(errno.ENOSYS, f"{name} does not exist here")
    result = int(LIBC.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def readings(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Files whose content must stay closed."""
    state, daemon, sibling = Path(t["state"]), t["daemon"], t["sibling"]
    return {
        "read the store key": Path(t["key"]).read_bytes,
        "read the database": Path(t["database"]).read_bytes,
        "list the state directory": lambda: os.listdir(state),
        "list the models directory": lambda: os.listdir(t["models"]),
        "read /etc/passwd": Path("/etc/passwd").read_bytes,
        "read another file of this user": Path(t["other"]).read_bytes,
        "list /proc": lambda: os.listdir("/proc"),
        "read the memory of the daemon": lambda: os.open(f"/proc/{daemon}/mem", os.O_RDONLY),
        "write the memory of the daemon": lambda: os.open(f"/proc/{daemon}/mem", os.O_RDWR),
        "read the environment of the daemon": Path(f"/proc/{daemon}/environ").read_bytes,
        "read the memory map of the daemon": Path(f"/proc/{daemon}/maps").read_bytes,
        "list the descriptors of the daemon": lambda: os.listdir(f"/proc/{daemon}/fd"),
        "read the memory of a sibling": lambda: os.open(f"/proc/{sibling}/mem", os.O_RDONLY),
        "read the environment of a sibling": Path(f"/proc/{sibling}/environ").read_bytes,
    }


def writings(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Files and names that must stay as they are."""
    state, models, key = Path(t["state"]), Path(t["models"]), Path(t["key"])
    return {
        "write into the state directory": lambda: (state / "x").write_bytes(b""),
        "write into the models directory": lambda: (models / "x").write_bytes(b""),
        "write into /tmp": lambda: Path("/tmp/edgeagent-attempt").write_bytes(b""),
        "append to the store key": lambda: key.open("ab"),
        "truncate the database": lambda: os.truncate(t["database"], 0),
        "create a file by openat2": lambda: call(
            "openat2",
            -100,
            os.fsencode(state / "y"),
            (ctypes.c_uint64 * 3)(os.O_CREAT | 1, 0o600, 0),
            24,
        ),
        "delete the database": lambda: os.unlink(t["database"]),
        "rename the database": lambda: os.rename(t["database"], state / "z"),
        "make a directory": lambda: os.mkdir(state / "d"),
        "link the key": lambda: os.link(key, state / "k"),
        "make a symbolic link": lambda: os.symlink("/", state / "l"),
        "make a pipe in the file system": lambda: os.mkfifo(state / "p"),
        "open the key to everybody": lambda: os.chmod(key, 0o666),
        "give the key away": lambda: os.chown(key, 65534, 65534),
        "change times of the database": lambda: os.utime(t["database"], (0, 0)),
        "set an attribute": lambda: os.setxattr(key, "user.x", b"1"),
        "cut the log off": lambda: os.ftruncate(2, 0),
        "make a file in memory": lambda: os.memfd_create("x"),
        "open a file by its handle": lambda: call("open_by_handle_at", -100, BUFFER, 0),
    }


def processes(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Other processes of the same user."""
    daemon, sibling = t["daemon"], t["sibling"]
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(BUFFER), 16)
    return {
        "trace the daemon": lambda: call("ptrace", 16, daemon, 0, 0),
        "trace a sibling": lambda: call("ptrace", 0x4206, sibling, 0, 0),
        "process_vm_readv": lambda: call("process_vm_readv", daemon, vector, 1, vector, 1, 0),
        "process_vm_writev": lambda: call("process_vm_writev", daemon, vector, 1, vector, 1, 0),
        "pidfd_open": lambda: call("pidfd_open", daemon, 0),
        "pidfd_getfd": lambda: call("pidfd_getfd", 0, 0, 0),
        "pidfd_send_signal": lambda: call("pidfd_send_signal", 0, 0, None, 0),
        "signal the daemon": lambda: os.kill(daemon, 0),
        "signal a sibling": lambda: os.kill(sibling, 0),
        "signal the whole group": lambda: os.kill(0, 0),
        "signal a thread of the daemon": lambda: call("tgkill", daemon, daemon, 0),
        "queue a signal": lambda: call("rt_sigqueueinfo", daemon, 0, BUFFER),
        "have the kernel signal the daemon": lambda: call("fcntl", 0, 8, daemon),
        "change limits of the daemon": lambda: call("prlimit64", daemon, 7, BUFFER, None),
        "move the daemon to one core": lambda: os.sched_setaffinity(daemon, {0}),
        "slow the daemon down": lambda: os.setpriority(os.PRIO_PROCESS, daemon, 19),
        "fork": os.fork,
        "start a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "become a program": lambda: os.execv("/bin/true", ["true"]),
        "become Python again": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    }


def sockets(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Ways out of the process and the machine."""
    families = {"IPv4": 2, "IPv6": 10, "Unix": 1, "netlink": 16, "packet": 17, "vsock": 40}
    found: dict[str, Callable[[], object]] = {
        f"open a socket: {name}": lambda family=family: call("socket", family, 1, 0)
        for name, family in families.items()
    }
    return found | {
        "connect": lambda: call("connect", 0, BUFFER, 16),
        "bind": lambda: call("bind", 0, BUFFER, 16),
        "listen": lambda: call("listen", 0, 1),
        "send to an address": lambda: call("sendto", 0, BUFFER, 1, 0, BUFFER, 16),
        "a pair of datagram sockets": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "type into the terminal": lambda: call("ioctl", 0, 0x5412, BUFFER),
    }


def kernel(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Corners of the kernel."""
    state = os.fsencode(t["state"])
    return {
        "watch the state directory (inotify)": lambda: call("inotify_init1", 0),
        "watch files (fanotify)": lambda: call("fanotify_init", 0, 0),
        "mount": lambda: call("mount", b"none", state, b"tmpfs", 0, None),
        "unmount": lambda: call("umount2", state, 0),
        "open a file system": lambda: call("fsopen", b"tmpfs", 0),
        "a user namespace": lambda: call("unshare", 0x10000000),
        "enter a namespace": lambda: call("setns", 0, 0),
        "another root": lambda: call("chroot", state),
        "read keyrings": lambda: call("keyctl", 0, -3, 0),
        "add a key": lambda: call("add_key", b"user", b"x", b"y", 1, -3),
        "perf": lambda: call("perf_event_open", BUFFER, 0, -1, -1, 0),
        "io_uring": lambda: call("io_uring_setup", 4, BUFFER),
        "bpf": lambda: call("bpf", 0, BUFFER, 72),
        "userfaultfd": lambda: call("userfaultfd", 0),
        "another kernel": lambda: call("kexec_load", 0, 0, None, 0),
        "a kernel module": lambda: call("init_module", BUFFER, 0, b""),
        "set the clock": lambda: call("clock_settime", 0, (ctypes.c_int64 * 2)(0, 0)),
        "shared memory": lambda: call("shmget", 0, 4096, 0o1600),
        "a message queue": lambda: call("mq_open", b"x", os.O_CREAT, 0o600, None),
        "another personality": lambda: call("personality", 0x0040000),
        "another user": lambda: call("setuid", 65534),
        "capabilities": lambda: call("capset", BUFFER, BUFFER),
        "be readable again": lambda: call("prctl", 4, 1, 0, 0, 0),
        "outlive the daemon": lambda: call("prctl", 1, 0, 0, 0, 0),
        "read the kernel's log": lambda: call("syslog", 3, BUFFER, 4096),
        "a call that is too new": lambda: int(LIBC.syscall(600)) and _raise(),
    }  # fmt: skip


def _raise() -> None:
    raise OSError(ctypes.get_errno(), "")


def attempt(function: Callable[[], object]) -> str:
    try:
        function()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc.errno))
    return "reached"


def main(arguments: list[str]) -> None:
    targets = json.loads(Path(arguments[0]).read_text())
    if "--without-landlock" in arguments:
        landlock.restrict = lambda *_: 0  # type: ignore[assignment]
    confinement.enter()
    outcomes = {}
    for group in (readings, writings, sockets, kernel, processes):
        for name, function in group(targets).items():
            outcomes[name] = attempt(function)
    print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
