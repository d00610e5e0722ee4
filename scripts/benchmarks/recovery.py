"""`scripts/bench recovery`: what a client sees when the engine is killed in mid-stream.

Each time a stream is begun, the worker gets SIGKILL after its first pieces, the stream must end with an
error event, and the clock runs from the kill to the first token of the next request, which a client
sends again at once, as the official SDKs do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
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


def killed_stream(served: Served, http: httpx.Client) -> tuple[float, bool]:
    """When the worker was killed, and whether the stream ended with an error event."""
    killed_s, has_error = 0.0, False
    with http.stream("POST", "/v1/chat/completions", json=BODY) as response:
        for n, line in enumerate(response.iter_lines()):
            if n == 8:
                served.children("edgeagent.engine.worker")[0].kill()
                killed_s = time.perf_counter()
            if line.startswith("data: {") and "error" in json.loads(line[6:]):
                has_error = True
    return killed_s, has_error


def first_token(http: httpx.Client) -> float:
    """When the first token of a new request came; asked again while the engine is being started."""
    while True:
        with http.stream("POST", "/v1/chat/completions", json=BODY | {"max_tokens": 2}) as response:
            if response.status_code == 200:
                for line in response.iter_lines():
                    if '"content":"' in line and '"content":""' not in line:
                        return time.perf_counter()  # leaving the block ends the short rest


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench recovery", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--kills", type=int, default=50)
    args = parser.parse_args()
    times, n_errors = [], 0
    with serving(args.models_dir) as served, httpx.Client(base_url=served.url, timeout=120) as http:
        served.wait_until_ready()
        pid = served.process.pid
        for _ in track(range(args.kills), console=Console(stderr=True)):
            killed_s, has_error = killed_stream(served, http)
            n_errors += has_error
            times.append(first_token(http) - killed_s)
        is_same = served.process.poll() is None and served.process.pid == pid
    times.sort()
    print(machine.describe())
    print(
        f"kills {args.kills}, daemon pid unchanged: {is_same}, streams ended by an error event: {n_errors}"
    )
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    print(
        f"kill to first token of the next request: p50 {statistics.median(times):.2f} s, p99 {p99:.2f} s"
    )
