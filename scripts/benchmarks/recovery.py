"""`scripts/bench recovery`: what a client sees when the engine is killed or stands still in mid-stream.

Each time a stream is begun, the worker gets SIGKILL (`--kills`) or SIGSTOP (`--stops`) after its first
pieces, the stream must end with an error event, and the clock runs from the signal to the first token of the
next request, which a client sends again at once, as the official SDKs do. A worker that stands still is ended
after `worker.hang_timeout_s` (`--hang-timeout`), which is part of the time.

`--times FILE` appends each time to a file and sums up all that it holds: a long measurement in pieces.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track

from scripts.benchmarks import machine
from scripts.benchmarks.served import Served, serving

BODY = {
    "messages": [{"role": "user", "content": "Tell me a long story about a ferry."}],
    "stream": True,
    "ignore_eos": True,
    "max_tokens": 400,
}
FAULTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True)
class Recovery:
    """One fault. `recovery_s`: from the signal to the first token of the next request. `has_error_event`: how
    the stream ended. `is_same_daemon`: whether the daemon lived on."""

    fault: str
    recovery_s: float
    has_error_event: bool
    is_same_daemon: bool


def faulted_stream(served: Served, http: httpx.Client, fault: str) -> tuple[float, bool]:
    """When the worker got the signal, and whether the stream ended with an error event."""
    signalled_s, has_error = 0.0, False
    with http.stream("POST", "/v1/chat/completions", json=BODY) as response:
        for n, line in enumerate(response.iter_lines()):
            if n == 8:
                served.children("edgeagent.engine.worker")[0].send_signal(FAULTS[fault])
                signalled_s = time.perf_counter()
            if line.startswith("data: {") and "error" in json.loads(line[6:]):
                has_error = True
    return signalled_s, has_error


def first_token(http: httpx.Client) -> float:
    """When the first token of a new request came; asked again while the engine is being started.

    The answer is read to its end: a worker that dies again and again without a whole answer is left alone for
    a while (`worker.breaker_deaths`)."""
    while True:
        came_s = None
        with http.stream("POST", "/v1/chat/completions", json=BODY | {"max_tokens": 2}) as response:
            for line in response.iter_lines():
                if came_s is None and '"content":"' in line and '"content":""' not in line:
                    came_s = time.perf_counter()
        if response.status_code == 200 and came_s is not None:
            return came_s


def summary(recoveries: Sequence[Recovery]) -> list[str]:
    """A line for each kind of fault."""
    lines = []
    for fault in FAULTS:
        found = [recovery for recovery in recoveries if recovery.fault == fault]
        if not found:
            continue
        times = sorted(recovery.recovery_s for recovery in found)
        p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
        lines.append(
            f"{fault}: {len(found)} times, {sum(r.has_error_event for r in found)} streams ended by an error "
            f"event, daemon gone {sum(not r.is_same_daemon for r in found)} times; to the first token of the "
            f"next request p50 {statistics.median(times):.2f} s, p99 {p99:.2f} s, at most {times[-1]:.2f} s"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--hang-timeout", type=float, default=5.0, help="worker.hang_timeout_s")
    parser.add_argument(
        "--times", type=Path, metavar="FILE", help="append here, sum up the whole file"
    )
    args = parser.parse_args()
    recoveries: list[Recovery] = []
    if args.times is not None and args.times.exists():
        recoveries = [Recovery(**json.loads(line)) for line in args.times.read_text().splitlines()]
    settings = {"worker.hang_timeout_s": args.hang_timeout}
    with (
        serving(args.models_dir, **settings) as served,
        httpx.Client(base_url=served.url, timeout=120) as http,
    ):
        served.wait_until_ready()
        faults = ["kill"] * args.kills + ["stop"] * args.stops
        random.Random(len(recoveries)).shuffle(faults)
        for fault in track(faults, console=Console(stderr=True)):
            signalled_s, has_error = faulted_stream(served, http, fault)
            recovery_s = first_token(http) - signalled_s
            is_same = served.process.poll() is None
            recoveries.append(Recovery(fault, recovery_s, has_error, is_same))
            if args.times is not None:
                with args.times.open("a") as file:
                    file.write(json.dumps(asdict(recoveries[-1])) + "\n")
    print(machine.describe(), f"hang_timeout_s {args.hang_timeout:g}")
    print("\n".join(summary(recoveries)))
    is_good = all(recovery.has_error_event and recovery.is_same_daemon for recovery in recoveries)
    sys.exit(0 if is_good else 1)
