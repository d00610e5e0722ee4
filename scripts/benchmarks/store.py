"""`scripts/bench store`: acknowledged small writes per second, beside what the same disk can sync.

32 threads write rows of 200 bytes, one after the other, each waiting for its acknowledgement; then one
thread alone. FULL is what the store does; NORMAL, which may lose acknowledged rows, and plain text show
what durability and encryption cost. Bytes written are those of this process (/proc/self/io).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from edgeagent.store.connection import StoreConnection
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.migrations import MIGRATIONS, Migration
from edgeagent.store.store_key import Secret
from scripts.benchmarks import machine

ROW = "x" * 200


def rows(db: StoreConnection) -> None:
    db.execute("CREATE TABLE bench (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")


SCHEMA = (*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "bench", rows))


def insert(db: StoreConnection) -> int:
    return int(db.execute("INSERT INTO bench (text) VALUES (?)", (ROW,)).lastrowid or 0)


def syncs_per_s(folder: Path, seconds: float) -> float:
    """How often 4 KiB can be appended and synced: no more commits than that can be acknowledged."""
    path, n_syncs = folder / "sync", 0
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        os.write(fd, bytes(4096))
        os.fdatasync(fd)
        n_syncs += 1
    took_s = time.perf_counter() - started
    os.close(fd)
    path.unlink()
    return n_syncs / took_s


@dataclass
class Load:
    """Threads that write until the time is over."""

    store: Database
    n_threads: int
    seconds: float
    waits_ms: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Acknowledged writes per second."""
        end = time.perf_counter() + self.seconds
        threads = [threading.Thread(target=self._write, args=(end,)) for _ in range(self.n_threads)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.waits_ms) / (time.perf_counter() - started)

    def _write(self, end: float) -> None:
        while (started := time.perf_counter()) < end:
            self.store.write(insert).result()
            self.waits_ms.append((time.perf_counter() - started) * 1000)


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def measure(
    folder: Path, seconds: float, n_threads: int, secret: Secret | None, **options: Any
) -> list[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        with Database(Path(place) / "store", secret, StoreOptions(**options), SCHEMA) as store:
            Load(store, n_threads, 0.2).run()
            load, before = Load(store, n_threads, seconds), store.counts()
            written = written_bytes()
            rate = load.run()
            written = written_bytes() - written
            counts = {name: n - before[name] for name, n in store.counts().items()}
        waits = statistics.quantiles(load.waits_ms, n=100)
    return [
        str(n_threads),
        f"{rate:,.0f}",
        f"{counts['n_commits'] / seconds:,.0f}",
        f"{counts['n_writes'] / counts['n_commits']:.1f}",
        f"{waits[49]:.2f}",
        f"{waits[98]:.2f}",
        f"{written / counts['n_writes'] / len(ROW):.1f}x",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    args = parser.parse_args()
    secret = Secret(os.urandom(32), "the benchmark")
    console = Console(width=110)
    console.print(machine.describe())
    table = Table(
        "mode", "threads", "acknowledged/s", "commits/s", "per commit", "p50 ms", "p99 ms", "written"
    )  # fmt: skip
    modes: list[tuple[str, Secret | None, Literal["FULL", "NORMAL"], float]] = [
        ("FULL", secret, "FULL", 0.0),
        ("FULL, window 5 ms", secret, "FULL", 5.0),
        ("NORMAL", secret, "NORMAL", 0.0),
        ("FULL, plain text", None, "FULL", 0.0),
    ]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        limits = [syncs_per_s(folder, 1.0)]
        for mode, key, synchronous, window_ms in modes:
            for n_threads in (32, 1):
                options = {"synchronous": synchronous, "group_window_ms": window_ms}
                table.add_row(mode, *measure(folder, args.seconds, n_threads, key, **options))
        limits.append(syncs_per_s(folder, 1.0))
    console.print(table)
    console.print(
        f"The disk appends and syncs 4 KiB {limits[0]:,.0f}/s before and {limits[1]:,.0f}/s after "
        "these runs: what single writes could reach at most."
    )
