"""Reloads and upgrades of a daemon under load, on a socket that stays open as systemd keeps it.

    python scripts/faults/upgrades.py [--reloads N] [--upgrades N] [--clients N]

1. reloads: the settings change, the daemon gets SIGHUP, and says what it took over
2. upgrades: the daemon gets SIGTERM and another version of it starts on the same socket with the same state
   and key. Two copies of this checkout that differ in their version number take turns.

Meanwhile each client opens a connection for every request; half of these are streams. Counted: connections
refused or broken, answers by status, streams without an end or an error event, and the longest wait. The exit
status is 1 if a connection was refused or broken, a stream had no end, an answer was neither a
200 nor a 503 with Retry-After, a reload was not reported, or the version did not change. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import N_THREADS, TALES_CHAT, approve_dropped, clean_environment, write_stories
from tests.daemon.managed import INHERIT
from tests.engine.family_templates import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20.0
IDLE_UNLOAD_S = (3600, 7200)  # a setting that a running daemon takes over


@dataclass
class Counts:
    """What the clients saw. `waits_s`: how long each answer took to begin."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    n_streams: int = 0
    n_error_events: int = 0
    waits_s: list[float] = field(default_factory=list)


class Device:
    """The socket, the state and the two versions, and a manager that starts, reloads and ends the daemon and
    hears what it reports."""

    def __init__(self, folder: Path, sock: socket.socket) -> None:
        self._folder, self._sock = folder, sock
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._manager.bind(str(folder / "notify"))
        self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        models = folder / "models"
        models.mkdir()
        write_stories(models / f"{TALES_CHAT}.gguf", FAMILIES["qwen2.5"].template, 8192)
        approve_dropped(models, folder / "state")
        self._settings = folder / "edgeagent.toml"
        self.configure(IDLE_UNLOAD_S[1])
        self.versions = [self._copy(n) for n in (1, 2)]
        self.log = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped_s = time.perf_counter()

    def _copy(self, n: int) -> str:
        """A copy of the package with a version of its own; returns the version."""
        place = self._folder / f"version-{n}"
        shutil.copytree(
            ROOT / "edgeagent", place / "edgeagent", ignore=shutil.ignore_patterns("__pycache__")
        )
        (place / "models").symlink_to(ROOT / "models")
        file = place / "edgeagent" / "types" / "version.py"
        text = file.read_text()
        (now,) = re.findall(r'VERSION = "(.*)"', text)
        version = f"{now}+{n}"
        file.write_text(text.replace(now, version))
        return version

    def configure(self, idle_unload_s: int) -> None:
        values: dict[str, Any] = {
            "pool.idle_unload_s": idle_unload_s, "models.default": TALES_CHAT, "engine.n_ctx": 4096,
            "engine.n_seq": 4, "engine.n_threads": N_THREADS, "device.measure_when_idle": False,
        }  # fmt: skip
        self._settings.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))

    def start(self, n: int) -> None:
        """Start version `n` (0 or 1) on the socket. Connections wait in it until it answers."""
        fd = self._sock.fileno()
        arguments = ["--state-dir", str(self._folder / "state"), "--config", str(self._settings)]
        arguments += ["--models-dir", str(self._folder / "models")]
        environment = clean_environment() | {
            "PYTHONPATH": str(self._folder / f"version-{n + 1}"),
            "NOTIFY_SOCKET": str(self._folder / "notify"),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", INHERIT, "1", str(fd), *arguments],
                pass_fds=[fd], cwd="/", env=environment, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    async def hear(self, wanted: str) -> None:
        """Wait until the daemon has reported `wanted`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIMIT_S):
                while wanted not in (await loop.sock_recv(self._manager, 4096)).decode().split():
                    pass
        except TimeoutError as exc:
            last = self.log.read_text()[-1000:]
            raise SystemExit(
                f"the daemon did not report {wanted}; its log ends with {last}"
            ) from exc

    async def upgrade(self, n: int) -> None:
        """End the daemon and start version `n` on the socket."""
        assert self.process is not None
        self.stopped_s = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        await self.hear("STOPPING=1")
        await asyncio.to_thread(self.process.wait, LIMIT_S)
        self.start(n)
        await self.hear("READY=1")

    async def reload(self, idle_unload_s: int) -> None:
        """Change a setting and let the daemon read it."""
        assert self.process is not None
        self.configure(idle_unload_s)
        self.process.send_signal(signal.SIGHUP)
        await self.hear("RELOADING=1")
        await self.hear("READY=1")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT_S)
        self._manager.close()


async def one_client(device: Device, number: int, is_over: asyncio.Event, counts: Counts) -> None:
    """Asks until it is over, on a new connection each time."""
    n = number
    limits = httpx.Limits(max_keepalive_connections=0)
    timeout = httpx.Timeout(LIMIT_S)
    async with httpx.AsyncClient(base_url=device.url, timeout=timeout, limits=limits) as http:
        while not is_over.is_set():
            n += 1
            begun_s = time.perf_counter()
            try:
                await (_stream if n % 2 else _answer)(http, n, counts)
            except httpx.HTTPError as exc:
                counts.failures[type(exc).__name__] += 1
                logging.warning(
                    "%r after %.2f s, %.2f s after the last stop",
                    exc,
                    time.perf_counter() - begun_s,
                    time.perf_counter() - device.stopped_s,
                )
                await asyncio.sleep(0.05)
            counts.waits_s.append(time.perf_counter() - begun_s)
            await asyncio.sleep(0.02)


def _body(n: int, **more: Any) -> dict[str, Any]:
    words = f"Question {n}: what does the lamp say?"
    return {
        "model": TALES_CHAT, "messages": [{"role": "user", "content": words}], "max_tokens": 12, **more,
    }  # fmt: skip


async def _answer(http: httpx.AsyncClient, n: int, counts: Counts) -> None:
    reply = await http.post("/v1/chat/completions", json=_body(n))
    counts.statuses[reply.status_code] += 1
    _note(reply, reply.text, counts)


async def _stream(http: httpx.AsyncClient, n: int, counts: Counts) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=_body(n, stream=True)) as reply:
        text = (await reply.aread()).decode()
    counts.statuses[reply.status_code] += 1
    counts.n_streams += 1
    _note(reply, text, counts)
    if reply.status_code != 200:
        return
    if '"error"' in text:
        counts.n_error_events += 1
    elif "data: [DONE]" not in text:
        counts.failures["stream without an end"] += 1


def _note(reply: httpx.Response, text: str, counts: Counts) -> None:
    if reply.status_code == 503 and "retry-after" not in reply.headers:
        counts.failures["503 without Retry-After"] += 1
    elif reply.status_code not in (200, 503):
        counts.failures[f"{reply.status_code} {text[:80]}"] += 1


async def answered(counts: Counts, n: int) -> bool:
    """Whether as many answers came in time."""
    end_s = time.monotonic() + LIMIT_S
    while counts.statuses[200] < n:
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(0.02)
    return True


async def run(
    device: Device, n_reloads: int, n_upgrades: int, n_clients: int
) -> tuple[Counts, int]:
    """What the clients saw, and how many reloads and upgrades went wrong."""
    counts, is_over, n_wrong = Counts(), asyncio.Event(), 0
    device.start(0)
    await device.hear("READY=1")
    async with httpx.AsyncClient(base_url=device.url, timeout=LIMIT_S) as http:
        clients = [
            asyncio.create_task(one_client(device, 1000 * k, is_over, counts))
            for k in range(n_clients)
        ]
        for k in track(range(n_reloads), "reloads", console=Console(stderr=True)):
            await device.reload(IDLE_UNLOAD_S[k % 2])
            await asyncio.sleep(0.05)
        n_taken = device.log.read_text().count("reloaded changed=pool.idle_unload_s")
        n_wrong += n_reloads - n_taken
        for k in track(range(n_upgrades), "upgrades", console=Console(stderr=True)):
            n = (k + 1) % 2
            await device.upgrade(n)
            n_before = counts.statuses[200]
            told = (await http.get("/health", headers={"connection": "close"})).json()["version"]
            n_wrong += told != device.versions[n]
            n_wrong += not await answered(counts, n_before + n_clients)
        is_over.set()
        await asyncio.gather(*clients)
    return counts, n_wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--upgrades", type=int, default=50)
    parser.add_argument("--clients", type=int, default=6)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="edgeagent-upgrades-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=256) as sock,
        closing(Device(Path(folder), sock)) as device,
    ):
        counts, n_wrong = asyncio.run(run(device, args.reloads, args.upgrades, args.clients))
    table = Table("what", "figure")
    waits = sorted(counts.waits_s)
    for row in (
        ("reloads, upgrades", f"{args.reloads}, {args.upgrades}; {n_wrong} went wrong"),
        ("requests, each on a connection of its own", str(len(waits))),
        ("connections refused", str(counts.failures["ConnectError"])),
        ("answers by status", ", ".join(f"{k}: {n}" for k, n in sorted(counts.statuses.items()))),
        ("streams", f"{counts.n_streams}, {counts.n_error_events} ended by an error event"),
        ("failures", ", ".join(f"{k}: {n}" for k, n in counts.failures.items() if n) or "none"),
        (
            "longest wait for an answer",
            f"{waits[-1]:.1f} s, median {statistics.median(waits):.2f} s",
        ),
    ):
        table.add_row(*row)
    Console(width=110).print(table)
    return 1 if n_wrong or sum(counts.failures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
