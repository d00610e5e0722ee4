"""Hundreds of connections that take places, memory or time beside a client who wants answers.

    scripts/faults/connections.py [--connections N] [--seconds N] [--only KIND]

For each kind of connection: the good client's p95 alone, its first answer while they arrive, its p95 beside
them, what it was refused, and how much the daemon's memory grew. Once without keys, where everybody is the
local owner, and once with keys, where the others have none. The daemon has its default of places; each
connection that is given up is opened again. The exit status is 1 if the good client was refused once, or if
the memory grew by more than 40 MB; the p95 is printed and aims at twice its value alone.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import multiprocessing
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import DaemonProcess, serving

MAX_GROWTH_BYTES = 40 << 20
TRICKLE_S = 0.5
REOPEN_S = 0.02  # between two connections that are opened again
_LINES = b"Host: localhost\r\nContent-Type: application/json\r\n"
_POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + _LINES


class Kind(NamedTuple):
    """What a connection sends at once, and then again and again."""

    first: bytes
    then: bytes = b""


KINDS = {
    "no body": Kind(_POST + b"Content-Length: 4000000\r\n\r\n"),
    "no body, over the bound": Kind(_POST + b"Content-Length: 60000000\r\n\r\n"),
    "trickled body": Kind(_POST + b"Content-Length: 4000000\r\n\r\n{", b" " * 100),
    "unfinished 4 MB body": Kind(_POST + b"Content-Length: 4000001\r\n\r\n" + b"[" * 4_000_000),
    "trickled head": Kind(_POST, b"x-more: " + b"y" * 50 + b"\r\n"),
    "nothing": Kind(b""),
    "chunks without an end": Kind(_POST + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
    "unread answer": Kind(b"GET /schema/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10),
}


class Crowd:
    """`n` connections of one kind, in a process of its own, opened again when they are given up."""

    def __init__(self, address: tuple[str, int], kind: Kind, n: int) -> None:
        self._address, self._kind, self._n = address, kind, n
        self._selector = selectors.DefaultSelector()
        self._left: dict[socket.socket, memoryview] = {}
        context = multiprocessing.get_context("fork")
        self._stop = context.Event()
        self._n_opened = context.Value("i", 0)
        self._process = context.Process(target=self._run, name="crowd", daemon=True)

    @property
    def n_opened(self) -> int:
        return int(self._n_opened.value)

    def __enter__(self) -> Crowd:
        self._process.start()
        deadline_s = time.monotonic() + 30
        while self.n_opened < self._n and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(10)
        self._process.kill()

    def _run(self) -> None:
        next_s = time.monotonic() + TRICKLE_S
        reopen_s = 0.0
        while not self._stop.is_set():
            # At most so many at once: the kernel's queue of new connections is the good client's too.
            n_at_once = 20 if self.n_opened < self._n else 1
            if n_at_once == 1 and time.monotonic() < reopen_s:
                n_at_once = 0
            reopen_s = time.monotonic() + REOPEN_S if n_at_once else reopen_s
            for _ in range(min(n_at_once, self._n - len(self._left))):
                self._open()
            for key, _ in self._selector.select(0.05):
                self._serve(key.fileobj)  # type: ignore[arg-type]
            if self._kind.then and time.monotonic() > next_s:
                next_s = time.monotonic() + TRICKLE_S
                for sock in list(self._left):
                    self._send(sock, memoryview(self._kind.then))

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if sock.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            sock.close()
            return
        self._n_opened.value += 1
        self._left[sock] = memoryview(self._kind.first)
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _serve(self, sock: socket.socket) -> None:
        if self._left[sock]:
            self._send(sock, self._left[sock])
        is_unread = self._kind is KINDS["unread answer"]
        with suppress(BlockingIOError):
            try:
                if sock in self._left and sock.recv(1, socket.MSG_PEEK if is_unread else 0) == b"":
                    self._drop(sock)
            except OSError as exc:
                if not isinstance(exc, BlockingIOError):
                    self._drop(sock)
        if sock in self._left and not self._left[sock]:
            wanted = 0 if is_unread else selectors.EVENT_READ
            with suppress(KeyError, ValueError):
                if wanted:
                    self._selector.modify(sock, wanted)
                else:
                    self._selector.unregister(sock)

    def _send(self, sock: socket.socket, data: memoryview) -> None:
        try:
            n = sock.send(data)
            if self._left[sock]:
                self._left[sock] = data[n:]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(sock)
        self._left.pop(sock, None)
        sock.close()


class Seen(NamedTuple):
    """What a good client saw: milliseconds of each answer, and what came instead of some."""

    times_ms: list[float]
    refused: list[str]

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.times_ms, n=20)[-1] if len(self.times_ms) > 1 else 0.0


def good_client(address: tuple[str, int], key: str | None, seconds: float) -> Seen:
    """A new connection for each request, one after the other."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    seen = Seen([], [])
    end_s = time.monotonic() + seconds
    while not seen.times_ms or time.monotonic() < end_s:
        began_s = time.monotonic()
        connection = http.client.HTTPConnection(*address, timeout=20)
        try:
            connection.request("GET", "/v1/models", headers=headers)
            reply = connection.getresponse()
            reply.read()
            if reply.status != 200:
                seen.refused.append(str(reply.status))
        except (OSError, http.client.HTTPException) as exc:
            seen.refused.append(type(exc).__name__)
        finally:
            connection.close()
        seen.times_ms.append(1e3 * (time.monotonic() - began_s))
        time.sleep(0.01)
    return seen


@contextmanager
def daemon() -> Iterator[DaemonProcess]:
    with tempfile.TemporaryDirectory(prefix="edgeagent-connections-") as folder:
        directory = Path(folder)
        with serving(
            directory / "models", directory / "state", is_forked=False, preload=False
        ) as served:
            yield served


def made_key(address: tuple[str, int]) -> str:
    connection = http.client.HTTPConnection(*address, timeout=20)
    body = json.dumps({"name": "good", "scopes": ["chat"]})
    connection.request("POST", "/admin/keys", body, {"Content-Type": "application/json"})
    secret: str = json.loads(connection.getresponse().read())["secret"]
    connection.close()
    return secret


def run(table: Table, kinds: dict[str, Kind], n: int, seconds: float, *, has_keys: bool) -> bool:
    """One row for each kind. False: a promise was broken."""
    is_kept = True
    for name, kind in kinds.items():
        print(f"{name} ...", file=sys.stderr)
        with daemon() as served:
            parts = urlsplit(served.url)
            address = (str(parts.hostname), int(parts.port or 0))
            key = made_key(address) if has_keys else None
            good_client(address, key, 1.0)  # warm
            alone = good_client(address, key, seconds)
            process = psutil.Process(served.pid)
            before = peak = process.memory_info().rss
            with Crowd(address, kind, n) as crowd:
                first = good_client(address, key, 0.0)  # while all of them are being accepted
                beside = good_client(address, key, seconds)
                peak = max(peak, process.memory_info().rss)
                n_opened = crowd.n_opened
        growth = peak - before
        is_kept &= not (beside.refused or first.refused) and growth <= MAX_GROWTH_BYTES
        table.add_row(
            name, "keys" if has_keys else "no keys", str(n_opened), f"{alone.p95_ms:.1f}",
            f"{first.times_ms[0]:.1f}",
            f"{beside.p95_ms:.1f}", f"{beside.p95_ms / max(alone.p95_ms, 0.01):.1f}",
            f"{len(beside.refused)} of {len(beside.times_ms)}", f"{growth / (1 << 20):.1f}",
        )  # fmt: skip
    return is_kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", choices=list(KINDS))
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    kinds = {k: v for k, v in KINDS.items() if arguments.only in (None, k)}
    columns = (
        "connections",
        "daemon",
        "opened",
        "p95 ms alone",
        "first",
        "beside",
        "ratio",
        "refused",
        "MB grown",
    )
    table = Table(*columns, title=f"{arguments.connections} connections beside a good client")
    kept = [
        run(table, kinds, arguments.connections, arguments.seconds, has_keys=has_keys)
        for has_keys in (False, True)
    ]
    Console(width=130).print(table)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
