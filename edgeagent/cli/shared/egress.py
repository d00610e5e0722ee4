"""The sockets of a running daemon and of its workers: who is connected to whom, and what could get out.

Everything is read from /proc; nothing is sent. A connection that the daemon has accepted is a client's; any
other one to an address beyond this machine is egress.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"
TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6")


@dataclass(frozen=True)
class Socket:
    """One internet socket. `peer` is None for one that is not connected."""

    protocol: str
    address: str
    port: int
    peer: str | None
    peer_port: int
    is_listening: bool

    @property
    def leads_outside(self) -> bool:
        return self.peer is not None and not ipaddress.ip_address(self.peer).is_loopback

    def shown(self) -> str:
        here = _place(self.address, self.port)
        if self.is_listening:
            return f"{self.protocol} listens on {here}"
        if self.peer is None:
            return f"{self.protocol} bound to {here}"
        return f"{self.protocol} {here} with {_place(self.peer, self.peer_port)}"


@dataclass(frozen=True)
class ProcessSockets:
    """A process, its internet sockets, the network interfaces that it sees, and whether it is confined: it
    cannot gain privileges, and a filter refuses system calls."""

    pid: int
    name: str
    sockets: tuple[Socket, ...]
    interfaces: tuple[str, ...]
    is_confined: bool

    @property
    def has_network(self) -> bool:
        return any(name != "lo" for name in self.interfaces)


def processes_of(daemon_pid: int, proc: Path = PROC) -> list[ProcessSockets]:
    """The daemon and everything that it has started. Processes that end meanwhile are left out."""
    found = []
    for pid in (daemon_pid, *_descendants(daemon_pid, proc)):
        try:
            found.append(_process(pid, proc))
        except FileNotFoundError:
            continue
    return found


def egress(processes: Iterable[ProcessSockets]) -> list[tuple[ProcessSockets, Socket]]:
    """Connections to beyond this machine that nobody made to a port on which the daemon listens."""
    processes = list(processes)
    served = {s.port for process in processes for s in process.sockets if s.is_listening}
    return [
        (process, socket)
        for process in processes
        for socket in process.sockets
        if socket.leads_outside and socket.port not in served
    ]


def running_daemon(lock_file: Path, proc: Path = PROC) -> int | None:
    """The process whose number is in the lock file of a state directory, if it is an edgeagent; else None."""
    try:
        pid = int(lock_file.read_text(encoding="ascii"))
        command = (proc / str(pid) / "cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"edgeagent" in command else None


def _process(pid: int, proc: Path) -> ProcessSockets:
    """Raises: FileNotFoundError, PermissionError."""
    folder = proc / str(pid)
    inodes = set(_socket_inodes(folder / "fd"))
    sockets = [
        socket
        for name in TABLES
        for inode, socket in _table(folder / "net" / name, name)
        if inode in inodes
    ]
    status = _fields(folder / "status")
    words = (folder / "cmdline").read_bytes().split(b"\0")
    return ProcessSockets(
        pid,
        _name([word.decode("utf-8", "replace") for word in words if word]),
        tuple(sockets),
        tuple(_interfaces(folder / "net" / "dev")),
        status.get("NoNewPrivs") == "1" and status.get("Seccomp") == "2",
    )


def _name(command: list[str]) -> str:
    """What a process is for: the module that Python runs, or its program."""
    module = next((word for word in command if word.startswith("edgeagent.")), None)
    if module is not None:
        return module
    return "daemon" if "serve" in command else Path(command[0]).name if command else "unknown"


def _descendants(pid: int, proc: Path) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        found += (below := sorted(children.get(left.pop(), [])))
        left += below
    return found


def _socket_inodes(folder: Path) -> Iterator[int]:
    for link in folder.iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _table(path: Path, protocol: str) -> Iterator[tuple[int, Socket]]:
    """Sockets by inode, of one table of the kernel. Source: https://docs.kernel.org/networking/proc_net_tcp.html"""
    try:
        lines = path.read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:
        return
    for line in lines:
        words = line.split()
        address, port = _decoded(words[1])
        peer, peer_port = _decoded(words[2])
        is_connected = peer_port != 0 or not ipaddress.ip_address(peer).is_unspecified
        is_listening = protocol.startswith("tcp") and words[3] == LISTEN
        yield (
            int(words[9]),
            Socket(
                protocol.removesuffix("6"), address, port, peer if is_connected else None, peer_port,
                is_listening,
            ),
        )  # fmt: skip


def _decoded(place: str) -> tuple[str, int]:
    """Address and port: the kernel prints each word of an address in the byte order of the machine."""
    digits, _, port = place.partition(":")
    raw = bytes.fromhex(digits)
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    address = ipaddress.ip_address(b"".join(words))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), int(port, 16)


def _interfaces(path: Path) -> list[str]:
    lines = path.read_text(encoding="ascii").splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
