"""`scripts/bench governor`: the governor against every fixed thread count, beside busy processes.

A daemon with the governor and one for each fixed thread count (`governor.enabled` false) answer the same
question in turn: alone, beside one and beside two processes that only compute. Rates are compared within a
round. Then a busy process begins, and ends, in the middle of an answer of the governed daemon: how long until
the rate is where it stays. And the first token of a cached prompt, beside the same processes.

`--record FILE` writes what the governor read meanwhile, for the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from edgeagent.device.contention import cores_taken, read_cpu_times
from edgeagent.device.system_files import SystemFiles
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from scripts.benchmarks.load import decode_rate
from scripts.benchmarks.load import one as one_request
from scripts.benchmarks.served import Served, serving
from scripts.benchmarks.workloads import prose

GOVERNED = "governor"
WINDOW_S = 0.5
SETTLED = 0.85  # of the rate at the end


@contextmanager
def busy(n: int) -> Iterator[None]:
    """`n` processes that only compute."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def body(text: str, max_tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def rate(served: Served, max_tokens: int) -> float:
    """Tokens per second of one answer."""
    found = decode_rate([await one_request(httpx.URL(served.url), body("Tell me.", max_tokens))])
    assert found is not None
    return found


async def first_token_s(served: Served, text: str) -> float:
    result = await one_request(httpx.URL(served.url), body(text, 2))
    return float(result["stamps"][0] - result["sent"])


async def settling_s(served: Served, n_before: int, n_after: int, max_tokens: int) -> float | None:
    """Seconds from a change of the number of busy processes until the rate stays near that of the end.

    None if the answer was over too early to tell."""
    with ExitStack() as before:
        before.enter_context(busy(n_before))
        await rate(served, max_tokens // 4)
        answer = asyncio.create_task(
            one_request(httpx.URL(served.url), body("Tell me more.", max_tokens))
        )
        await asyncio.sleep(2.0)
        before.close()
        with busy(n_after):
            changed_s = time.perf_counter()
            result = await answer
    stamps = [stamp for stamp in result["stamps"] if stamp >= changed_s]
    if not stamps or stamps[-1] - changed_s < 6.0:
        return None
    n_windows = int((stamps[-1] - changed_s) / WINDOW_S)
    counts = [0] * n_windows
    for stamp in stamps:
        counts[min(n_windows - 1, int((stamp - changed_s) / WINDOW_S))] += 1
    smooth = [(a + b) / 2 for a, b in pairwise(counts)]  # over one second
    steady = statistics.median(smooth[len(smooth) // 2 :])
    for i in range(len(smooth)):
        if statistics.median(smooth[i : i + 3]) >= SETTLED * steady:
            return i * WINDOW_S
    return None


class Recorder:
    """What the governor reads of this machine, in a task beside the measurement."""

    def __init__(self, served: Served, path: Path) -> None:
        self._served = served
        self._path = path
        self.n_busy = 0
        self.part = 0

    async def run(self) -> None:
        tree, cpus = SystemFiles(Path("/")), os.sched_getaffinity(0)
        before, then = None, time.monotonic()
        with self._path.open("w") as file:
            while True:
                children = self._served.children("edgeagent.engine.worker")
                pids = [self._served.process.pid, *(child.pid for child in children)]
                times, now = read_cpu_times(tree, cpus, pids), time.monotonic()
                if times is not None and before is not None:
                    taken = round(cores_taken(before, times, now - then), 2)
                    row = {"at_s": round(now, 2), "part": self.part, "n_busy": self.n_busy}
                    file.write(json.dumps(row | {"cores_taken": taken}) + "\n")
                before, then = times, now
                await asyncio.sleep(0.75)


async def compare(
    daemons: dict[str, Served], n_busy: int, rounds: int, max_tokens: int
) -> dict[str, list[float]]:
    """The rates of each daemon, round by round."""
    rates: dict[str, list[float]] = defaultdict(list)
    await rate(daemons[GOVERNED], max_tokens)  # it notices what is beside it
    for k in range(rounds):
        names = list(daemons)
        random.Random(k).shuffle(names)
        for name in names:
            rates[name].append(await rate(daemons[name], max_tokens))
    return rates


async def measure(daemons: dict[str, Served], args: argparse.Namespace) -> None:
    governed = daemons[GOVERNED]
    recorder = Recorder(governed, args.record) if args.record else None
    recording = asyncio.create_task(recorder.run()) if recorder else None
    prompt = prose(300, 7)
    for part, n_busy in enumerate((0, 1, 2, 0) if recorder else (0, 1, 2)):
        if recorder:
            recorder.part, recorder.n_busy = part, n_busy
        with busy(n_busy):
            quiet = machine.Quiet()
            rates = await compare(daemons, n_busy, args.rounds, args.max_tokens)
            first = [await first_token_s(governed, prompt) for _ in range(6)][1:]
        print(f"\nbeside {n_busy} busy, others {quiet.others():.0%} (busy ones included)")
        medians = {name: statistics.median(values) for name, values in rates.items()}
        for name, median in sorted(medians.items()):
            print(f"  {name:<12} {median:7.1f} tok/s")
        best = max((n for n in medians if n != GOVERNED), key=lambda n: medians[n])
        ratios = [g / b for g, b in zip(rates[GOVERNED], rates[best], strict=True)]
        print(f"  over the best fixed ({best}): {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)")  # fmt: skip
        print(
            f"  first token of a cached prompt {statistics.median(first):.2f} s, at most {max(first):.2f}"
        )
    if recording:
        recording.cancel()
    for n_before, n_after in ((0, 1), (1, 0), (1, 2)):
        found = [
            await settling_s(governed, n_before, n_after, args.settle_tokens)
            for _ in range(args.rounds)
        ]
        known = [value for value in found if value is not None]
        told = f"{statistics.median(known):.1f} s, at most {max(known):.1f}" if known else "unknown"
        print(
            f"from {n_before} to {n_after} busy: settled after {told} ({len(known)}/{len(found)})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench governor", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--settle-tokens", type=int, default=1500)
    parser.add_argument("--record", type=Path, help="write the readings as JSON lines")
    args = parser.parse_args()
    n_cores = len(os.sched_getaffinity(0))
    settings: dict[str, object] = {"models.default": MODEL, "n_ctx": 4096, "n_seq": 2}
    with ExitStack() as stack:
        daemons = {GOVERNED: stack.enter_context(serving(args.models_dir, **settings))}
        for n in sorted({1, max(1, n_cores // 2), n_cores}):
            fixed = settings | {"governor.enabled": False, "engine.n_threads": n}
            daemons[f"{n} thread{'s' * (n > 1)}"] = stack.enter_context(
                serving(args.models_dir, **fixed)
            )
        for served in daemons.values():
            served.wait_until_ready()
        print(machine.describe(), f"load {os.getloadavg()[0]:.1f}")
        asyncio.run(measure(daemons, args))
