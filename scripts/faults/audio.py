"""Damaged and hostile recordings (`hostile_audio.py`), thrown at a running daemon. Prints one table.

    scripts/faults/audio.py [--files N] [--seed N] [--audio FILE ...] [--models-dir DIR]

Addresses inside the files are those of a listener of this script, which counts who comes. The exit status is
1 if the daemon ended, a worker died, had a socket or held more memory than its bound, anybody came to the
listener, or an answer was not 200, 400 or 413 or took longer than its bound.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.hostile_audio import files
from scripts.faults.speech_jobs import peak, workers
from tests.conftest import CACHE, DaemonProcess, serving

MAX_WORKER_BYTES = 700 << 20
MAX_ANSWER_S = 120.0
PLANNED = (200, 400, 413)
# Sockets of the workers are counted after so many files.
LOOK_EVERY = 10


@dataclass
class Outcome:
    """What was answered to each kind of file, and what went wrong."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    n_visitors: int = 0
    workers: set[int] = field(default_factory=set)
    worker_bytes: int = 0
    daemon_bytes: int = 0
    slowest_s: float = 0.0


def throw(daemon: DaemonProcess, n: int, seed: int, folder: Sequence[Path] = ()) -> Outcome:
    """Send `n` files, one after another."""
    found = Outcome()
    console = Console(stderr=True)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        canary = f"127.0.0.1:{listener.getsockname()[1]}"
        made = track(
            files(n, seed, canary=canary, folder=folder),
            total=n, console=console, disable=not console.is_terminal,
        )  # fmt: skip
        with httpx.Client(base_url=daemon.url, timeout=MAX_ANSWER_S) as http:
            for i, (kind, data) in enumerate(made):
                _send(http, f"file {i} ({kind})", kind, data, found)
                if daemon.process.poll() is not None:
                    found.wrong.append(f"file {i} ({kind}): the daemon ended")
                    return found
                if i % LOOK_EVERY == 0 or i == n - 1:
                    _look_at_workers(daemon, found)
        found.n_visitors = _visitors(listener)
    found.daemon_bytes = peak(daemon.pid)
    if found.n_visitors:
        found.wrong.append(f"{found.n_visitors} came to the address in the files")
    if found.worker_bytes > MAX_WORKER_BYTES:
        found.wrong.append(f"a worker held {found.worker_bytes / 1e6:.0f} MB")
    return found


def _send(http: httpx.Client, name: str, kind: str, data: bytes, found: Outcome) -> None:
    started_s = time.monotonic()
    try:
        answer = http.post("/v1/audio/transcriptions", files={"file": ("a", data)})
    except httpx.HTTPError as exc:
        found.wrong.append(f"{name}: {type(exc).__name__}")
        return
    found.slowest_s = max(found.slowest_s, time.monotonic() - started_s)
    found.answers.setdefault(kind, Counter())[answer.status_code] += 1
    if answer.status_code not in PLANNED:
        found.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")


def _look_at_workers(daemon: DaemonProcess, found: Outcome) -> None:
    for pid in workers(daemon):
        try:
            found.workers.add(pid)
            if psutil.Process(pid).net_connections(kind="inet"):
                found.wrong.append("a worker has a socket")
            found.worker_bytes = max(found.worker_bytes, peak(pid))
        except (psutil.NoSuchProcess, OSError):
            continue


def _visitors(listener: socket.socket) -> int:
    n = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return n
        connection.close()
        n += 1


def show(found: Outcome, n_deaths: int) -> None:
    table = Table("files", "answers", *map(str, PLANNED), "others")
    for kind, counts in sorted(found.answers.items()):
        planned = [counts[status] for status in PLANNED]
        numbers = (counts.total(), *planned, counts.total() - sum(planned))
        table.add_row(kind, *map(str, numbers))
    Console().print(table)
    print(
        f"worker deaths: {n_deaths}; daemon exits: {sum('daemon ended' in w for w in found.wrong)}; "
        f"connections to addresses in the files: {found.n_visitors}; slowest answer: "
        f"{found.slowest_s:.1f} s; at most {found.worker_bytes / 1e6:.0f} MB in a worker and "
        f"{found.daemon_bytes / 1e6:.0f} MB in the daemon"
    )
    for line in found.wrong[:20]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--audio", type=Path, nargs="*", default=[], help="recordings to damage")
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        # Longer recordings are refused once they are decoded: the way to the model is tried, not the model.
        settings = {"preload": False, "speech.max_audio_s": 20.0}
        with serving(args.models_dir, Path(state), **settings) as daemon:
            found = throw(daemon, args.files, args.seed, args.audio)
            n_deaths = daemon.log.read_text().count("worker_died")
    if n_deaths:
        found.wrong.append(f"workers died {n_deaths} times")
    show(found, n_deaths)
    sys.exit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
