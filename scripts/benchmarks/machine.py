"""What the machine is, how fast its memory is, and whether anybody else is using it."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from edgeagent.worker.process_environment import worker_environment

_WORKER = "EDGEAGENT_BENCH_WORKER"
TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> str:
    """CPU, usable cores and memory in one line."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.release()}"


def memory_bytes(pid: int) -> int:
    """What a process and its descendants hold; pages that several of them have count once."""
    process = psutil.Process(pid)
    return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)])


def become_worker(benchmark: str) -> None:
    """Begin this benchmark anew in a worker's environment, in which threads wait for each other as there."""
    if _WORKER not in os.environ:
        os.environ |= worker_environment(True) | {_WORKER: "1"}
        command = [sys.executable, "-m", "scripts.benchmarks", benchmark, *sys.argv[1:]]
        os.execv(sys.executable, command)


def bandwidth_bytes_per_s(n_threads: int) -> float:
    """Reading rate over 256 MB, the best of five."""
    from concurrent.futures import ThreadPoolExecutor

    parts = np.array_split(np.ones(64 << 20, np.float32), n_threads)
    best = 0.0
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(np.maximum.reduce, parts))
            best = max(best, (256 << 20) / (time.perf_counter() - started))
    return best


class Quiet:
    """CPU time that processes outside `pids` used during a block, as a share of all cores.

    What the hypervisor took away (steal) counts as somebody else's.
    """

    def __init__(self) -> None:
        self._start = (time.monotonic(), _busy_s(), _own_s())

    def others(self) -> float:
        wall, busy, own = (
            a - b for a, b in zip((time.monotonic(), _busy_s(), _own_s()), self._start, strict=True)
        )
        return max(0.0, busy - own) / (wall * (os.cpu_count() or 1))


def _busy_s() -> float:
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS


def _own_s() -> float:
    """CPU seconds of this process and all its descendants, ended ones included."""
    total = 0.0
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(x) for x in stat[11:15]) / TICKS
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, IndexError):
            continue
    return total
