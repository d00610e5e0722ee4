"""`scripts/bench turns`: what a stored conversation turn costs the disk, and a write its client.

Bytes are those that the daemon caused to be sent to the storage layer (`write_bytes` of /proc/PID/io),
and, where the state directory lies on a block device of its own, the sectors that device wrote. A
write is acknowledged feedback: one row, on the disk when the answer comes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track

from scripts.benchmarks import machine
from scripts.benchmarks.served import Served, serving

SECTOR_BYTES = 512
ASK = "Which line stops at the harbour on Sundays, and where do I change for the ferry?"


def written(served: Served) -> int:
    """Bytes that the daemon, and not its workers, has sent to storage since it was started."""
    text = Path(f"/proc/{served.process.pid}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])


def device_written(folder: Path) -> int | None:
    """Bytes that the folder's block device has written since boot, by everyone."""
    device = folder.stat().st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not stat.is_file():
        return None
    return int(stat.read_text().split()[6]) * SECTOR_BYTES


def turns(served: Served, http: httpx.Client, n: int, *, store: bool) -> tuple[float, float | None]:
    """Bytes of one turn: by the daemon's own count, and by the device's."""
    body = {"messages": [{"role": "user", "content": ASK}], "max_tokens": 32, "store": store}
    before, device = written(served), device_written(served.log.parent)
    for _ in track(range(n), console=Console(stderr=True), description=f"store={store}"):
        http.post("/v1/chat/completions", json=body).raise_for_status()
    time.sleep(2.5)  # request rows are written together, every two seconds here
    os.sync()
    after = device_written(served.log.parent)
    by_device = None if device is None or after is None else (after - device) / n
    return (written(served) - before) / n, by_device


def writes(http: httpx.Client, target: str, seconds: float) -> list[float]:
    """Seconds of each acknowledged write, one after the other, ascending."""
    took = []
    until = time.perf_counter() + seconds
    body = {"target_id": target, "rating": 1}
    while (started := time.perf_counter()) < until:
        http.post("/v1/feedback", json=body).raise_for_status()
        took.append(time.perf_counter() - started)
        time.sleep(0.005)
    return sorted(took)


def percentile(sorted_s: list[float], share: float) -> str:
    return f"{1e3 * sorted_s[min(len(sorted_s) - 1, int(share * len(sorted_s)))]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench turns", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=15.0)
    args = parser.parse_args()
    settings = {"n_ctx": 4096, "n_seq": 8, "request_flush_s": 2}
    with (
        serving(args.models_dir, **settings) as served,
        httpx.Client(base_url=served.url, timeout=120) as http,
    ):
        served.wait_until_ready()
        plain, plain_device = turns(served, http, args.turns, store=False)
        stored, stored_device = turns(served, http, args.turns, store=True)
        made = http.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": ASK}], "max_tokens": 2, "store": True},
        ).json()
        quiet = writes(http, made["id"], args.seconds)
        load = [sys.executable, "-m", "scripts.benchmarks.load", served.url, "--clients", "8"]
        with subprocess.Popen(
            [*load, "--requests", "3", "--max-tokens", "128"], stdout=subprocess.DEVNULL
        ) as chatting:
            time.sleep(2)
            loaded = writes(http, made["id"], args.seconds)
            chatting.terminate()
    print(machine.describe())
    for name, own, by_device in (
        ("turn, not stored", plain, plain_device),
        ("turn, stored", stored, stored_device),
    ):
        print(
            f"{name}: {own / 1024:.1f} KiB written"
            + (f", {by_device / 1024:.1f} KiB by the device" if by_device is not None else "")
        )
    for name, took in (("alone", quiet), ("beside 8 chatting clients", loaded)):
        print(
            f"write {name}: p50 {percentile(took, 0.5)}, p99 {percentile(took, 0.99)}, n={len(took)}"
        )


if __name__ == "__main__":
    main()
