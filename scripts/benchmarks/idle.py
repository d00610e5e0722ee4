"""`scripts/bench idle`: what a daemon costs that nobody asks for anything, with a model in memory.

Wake-ups are the times that threads have slept and been woken (voluntary context switches in /proc), of all
threads of the daemon and of each worker; processor time and bytes given to the disk come from /proc, too. The
clock starts when what the last answer left to do is done: its row of the request log is written in a minute,
and the journal of the store is then copied into it.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL
from scripts.benchmarks.served import serving

TICKS = os.sysconf("SC_CLK_TCK")
BODY = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8}


@dataclass(frozen=True)
class Usage:
    """Of one process since its start."""

    n_wakeups: int
    cpu_s: float
    written_bytes: int

    def since(self, before: Usage) -> Usage:
        return Usage(
            self.n_wakeups - before.n_wakeups,
            self.cpu_s - before.cpu_s,
            self.written_bytes - before.written_bytes,
        )


def usage(pid: int) -> Usage:
    base = Path(f"/proc/{pid}")
    n_wakeups = 0
    for task in base.joinpath("task").iterdir():
        found = re.search(
            r"(?m)^voluntary_ctxt_switches:\s+(\d+)", task.joinpath("status").read_text()
        )
        assert found is not None
        n_wakeups += int(found[1])
    times = base.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    written = re.search(r"(?m)^write_bytes: (\d+)", base.joinpath("io").read_text())
    assert written is not None
    return Usage(n_wakeups, sum(map(int, times)) / TICKS, int(written[1]))


def row(name: str, used: Usage, seconds: float) -> str:
    per_hour = 3600 / seconds
    return (
        f"{name:<28}{used.n_wakeups / seconds:6.2f} wake-ups/s {used.cpu_s * per_hour:7.2f} CPU s/h "
        f"{used.written_bytes * per_hour:9.0f} bytes written/h"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench idle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=75.0, help="seconds after the last answer")
    args = parser.parse_args()
    with serving(args.models_dir, **{"models.default": MODEL}) as served:
        served.wait_until_ready()
        httpx.post(f"{served.url}/v1/chat/completions", json=BODY, timeout=120).raise_for_status()
        time.sleep(args.settle)
        processes = [psutil.Process(served.process.pid)]
        processes += processes[0].children(recursive=True)
        before = {process.pid: usage(process.pid) for process in processes}
        started_s = time.monotonic()
        time.sleep(args.seconds)
        after = {pid: usage(pid) for pid in before}
        seconds = time.monotonic() - started_s
        print(machine.describe(), f"load {os.getloadavg()[0]:.1f}, {seconds:.0f} s")
        for process in processes:
            module = next((part for part in process.cmdline() if part.startswith("edgeagent")), "")
            is_daemon = process.pid == served.process.pid
            name = "daemon" if is_daemon else module.removeprefix("edgeagent.")
            print(row(name, after[process.pid].since(before[process.pid]), seconds))
