"""`scripts/bench governor`: the governor against every fixed thread count, beside busy processes.

A daemon with the governor and one for each fixed thread count (`governor.enabled` false) answer the same
question in turn: alone, beside one and beside two processes that only compute. Rates are compared within a
round. Then a busy process begins, and ends, in the middle of an answer of the governed daemon: how long until
the rate is where it stays. And the first token of a cached prompt, beside the same processes.

One round of all parts takes about four minutes. `--times FILE` appends what was measured and sums up all
that the file holds, so that rounds can be made one by one; `--parts 0` measures alone only, `--parts settle`
how fast it settles. `--record FILE` writes what the governor read meanwhile, for the tests.
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
SETTLE = "settle"
PARTS = ("0", "1", "2", SETTLE)
WINDOW_S = 0.5
BEFORE_S, SETTLE_S = 2.0, 10.0  # of an answer, before and after the change
SETTLE_TOKENS = 3000  # more than come in that time
CHANGES = ((0, 1), (1, 0), (1, 2))
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


async def settling_s(served: Served, n_before: int, n_after: int) -> float | None:
    """Seconds from a change of the number of busy processes until the rate stays near that of the end.

    None if it did not within the time of the answer."""
    long = body("Tell me more.", SETTLE_TOKENS)
    url = httpx.URL(served.url)
    with ExitStack() as before:
        before.enter_context(busy(n_before))
        await one_request(url, long, BEFORE_S)
        answer = asyncio.create_task(one_request(url, long, BEFORE_S + SETTLE_S))
        await asyncio.sleep(BEFORE_S)
        before.close()
        with busy(n_after):
            changed_s = time.perf_counter()
            result = await answer
    return settled(result["stamps"], changed_s)


def settled(stamps: list[float], changed_s: float) -> float | None:
    """Seconds from the change until the rate, over a second, stays near that of the last half. Pure."""
    stamps = [stamp for stamp in stamps if stamp >= changed_s]
    n_windows = int((stamps[-1] - changed_s) / WINDOW_S) if stamps else 0
    if n_windows < 8:
        return None
    counts = [0] * n_windows
    for stamp in stamps:
        counts[min(n_windows - 1, int((stamp - changed_s) / WINDOW_S))] += 1
    smooth = [(a + b) / 2 for a, b in pairwise(counts)]
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


async def rates(
    daemons: dict[str, Served], n_busy: int, rounds: int, max_tokens: int
) -> list[dict[str, Any]]:
    """A row for each round: the rates of all daemons, which answer in turn in a random order, and the first
    token of a cached prompt."""
    rows = []
    prompt = prose(300, 7)
    with busy(n_busy):
        await rate(daemons[GOVERNED], max_tokens)  # it notices what is beside it
        await first_token_s(daemons[GOVERNED], prompt)
        for _ in range(rounds):
            quiet, n_changes = machine.Quiet(), n_decisions(daemons[GOVERNED])
            names = list(daemons)
            random.Random(time.time_ns()).shuffle(names)
            found = {name: await rate(daemons[name], max_tokens) for name in names}
            first_s = [await first_token_s(daemons[GOVERNED], prompt) for _ in range(3)]
            rows.append({
                "n_busy": n_busy, "rates": found, "first_s": first_s, "others": quiet.others(),
                "n_changes": n_decisions(daemons[GOVERNED]) - n_changes,
            })  # fmt: skip
    return rows


def n_decisions(served: Served) -> int:
    """How often the governor has decided otherwise than before."""
    return served.log.read_text().count(" governor reasons=")


async def measure(daemons: dict[str, Served], args: argparse.Namespace) -> list[dict[str, Any]]:
    governed = daemons[GOVERNED]
    recorder = Recorder(governed, args.record) if args.record else None
    recording = asyncio.create_task(recorder.run()) if recorder else None
    numbers = [int(part) for part in args.parts if part != SETTLE]
    rows: list[dict[str, Any]] = []
    for part, n_busy in enumerate([*numbers, 0] if recorder else numbers):
        if recorder:
            recorder.part, recorder.n_busy = part, n_busy
        rows += await rates(daemons, n_busy, args.rounds, args.max_tokens)
    if recording:
        recording.cancel()
    for change in CHANGES * args.rounds if SETTLE in args.parts else ():
        rows.append({"change": change, "settled_s": await settling_s(governed, *change)})
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """What all rows say. Pure."""
    lines = []
    for n_busy in (0, 1, 2):
        found = [row for row in rows if row.get("n_busy") == n_busy]
        if not found:
            continue
        others = statistics.median(row["others"] for row in found)
        lines.append(f"beside {n_busy} busy, others {others:.0%} (busy ones included)")
        medians = {
            name: statistics.median(row["rates"][name] for row in found)
            for name in found[0]["rates"]
        }
        lines += [f"  {name:<12} {median:7.1f} tok/s" for name, median in sorted(medians.items())]
        best = max((name for name in medians if name != GOVERNED), key=medians.__getitem__)
        ratios = [row["rates"][GOVERNED] / row["rates"][best] for row in found]
        lines.append(
            f"  over the best fixed ({best}): {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}, {len(ratios)} rounds); medians {medians[GOVERNED] / medians[best]:.2f}; "
            f"other decisions meanwhile: {sum(row.get('n_changes', 0) for row in found)}"
        )
        first = [value for row in found for value in row["first_s"]]
        lines.append(
            f"  first token of a cached prompt {statistics.median(first):.2f} s, at most {max(first):.2f}"
        )
    for change in CHANGES:
        times = [row["settled_s"] for row in rows if row.get("change") in (change, list(change))]
        known = [value for value in times if value is not None]
        if times:
            told = (
                f"{statistics.median(known):.1f} s, at most {max(known):.1f}"
                if known
                else "unknown"
            )
            lines.append(
                f"from {change[0]} to {change[1]} busy: settled after {told} ({len(known)}/{len(times)})"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench governor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help="busy processes beside it (0, 1, 2), or settle; default: all")  # fmt: skip
    parser.add_argument("--times", type=Path, metavar="FILE", help="append here, sum up all of it")
    parser.add_argument("--record", type=Path, help="write the readings as JSON lines")
    args = parser.parse_args()
    n_cores = len(os.sched_getaffinity(0))
    settings: dict[str, object] = {"models.default": MODEL, "n_ctx": 4096, "n_seq": 2}
    with ExitStack() as stack:
        daemons = {GOVERNED: stack.enter_context(serving(args.models_dir, **settings))}
        for n in sorted({1, max(1, n_cores // 2), n_cores}) if args.parts != [SETTLE] else ():
            fixed = settings | {"governor.enabled": False, "engine.n_threads": n}
            daemons[f"{n} thread{'s' * (n > 1)}"] = stack.enter_context(
                serving(args.models_dir, **fixed)
            )
        for served in daemons.values():
            served.wait_until_ready()
        print(machine.describe(), f"load {os.getloadavg()[0]:.1f}")
        rows = asyncio.run(measure(daemons, args))
    if args.times is not None:
        with args.times.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        rows = [json.loads(line) for line in args.times.read_text().splitlines()]
    print("\n".join(summary(rows)))
