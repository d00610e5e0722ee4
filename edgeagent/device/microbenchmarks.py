"""Microbenchmarks: memory bandwidth, matrix products and disk reads, each in a child process.

numpy is imported only in `python -m edgeagent.device.microbenchmarks`, so a measuring daemon never loads
numpy or its BLAS threads. The child prints one JSON object per line: progress, then a result.

Decoding reads every weight once per token, so bandwidth limits tokens per second; prefill is a matrix
product, so GEMM limits the time to the first token. llama.cpp's decode reaches 77 to 86% of the bandwidth
measured here (2 cores of a Zen 4 server, 2026).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeagent.device.measurement import MeasuredRate, Measurement
from edgeagent.device.probe import Device
from edgeagent.worker import spawn

Progress = Callable[[str, float], None]
"""Called with the current measurement and the share that is done, 0 to 1."""

_MIB = 1024 * 1024
_DEFAULT_LIMIT_S = 6.0
_SHARE_SECONDS = 0.35  # of the measuring time, for each thread count of each kind
_LLC_UNKNOWN_BYTES = 8 * _MIB
_BUFFER_MAX_BYTES = 512 * _MIB
_BUFFER_MIN_BYTES = 32 * _MIB
_GEMM_SIZE = 768  # 3 matrices of 2.25 MiB: beyond L2, and 0.1 s a product on the slowest board


class OutputLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the child's output: progress, a finished rate, or why there is none."""

    n_threads: int = 0
    share: float = 0.0
    result: float | None = None
    error: str | None = None


def thread_counts(device: Device) -> tuple[int, ...]:
    """The thread counts to measure: 1, powers of two, all performance cores, all usable cores."""
    cores = device.cores
    most = cores.n_threads_max
    wanted = {1, cores.n_performance_usable, cores.n_physical_usable, most}
    wanted |= {1 << power for power in range(most.bit_length())}
    return tuple(sorted(count for count in wanted if 1 <= count <= most))


def buffer_bytes(device: Device) -> int:
    """Four times the last-level cache, within a quarter of available RAM and 32 to 512 MiB."""
    wanted = 4 * (device.cpu.llc_bytes or _LLC_UNKNOWN_BYTES)
    room = (device.memory.available_bytes or 4 * _BUFFER_MIN_BYTES) // 4
    return max(_BUFFER_MIN_BYTES, min(wanted, room, _BUFFER_MAX_BYTES)) // _MIB * _MIB


def measure(
    device: Device,
    *,
    file: Path | None = None,
    limit_s: float = _DEFAULT_LIMIT_S,
    progress: Progress | None = None,
) -> Measurement:
    """Measure bandwidth and matrix products at several thread counts, and reads of `file`.

    Blocks for at most about `limit_s` seconds: call it from a thread. What does not fit into the time is
    left out and noted. `file` should be a large file on the relevant disk, such as a model. Run it while
    the machine is otherwise idle; this function cannot detect load.
    """
    start = time.monotonic()
    size = buffer_bytes(device)
    counts = thread_counts(device)
    # One child for all memory measurements; one each for BLAS, whose thread count is fixed when it is loaded.
    # The count that a profile would choose comes first, in case the time does not suffice for all.
    first = max(1, min(device.cores.n_performance_usable, counts[-1]))
    tasks = [("memory", counts)]
    tasks += [("gemm", (n,)) for n in sorted(counts, key=lambda n: (n != first, n))]
    rates: dict[str, list[MeasuredRate]] = {"memory": [], "gemm": []}
    notes: list[str] = []
    for index, (kind, wanted) in enumerate(tasks):
        left_s = limit_s - (time.monotonic() - start)
        found, error = _child(kind, wanted, size, left_s, _scaled(progress, index, len(tasks)))
        rates[kind] += found
        if len(found) < len(wanted):
            missing = ", ".join(str(n) for n in wanted[len(found) :])
            notes.append(f"{kind}, {missing} thread(s): {error}")
    if progress is not None:
        progress("done", 1.0)
    return Measurement(
        measured_utc_ms=int(time.time() * 1000),
        wall_s=round(time.monotonic() - start, 2),
        buffer_bytes=size,
        memory_gb_per_s=tuple(rates["memory"]),
        gemm_gflop_per_s=tuple(sorted(rates["gemm"], key=lambda rate: rate.n_threads)),
        disk_read_mb_per_s=read_rate(file, limit_s=1.0) if file is not None else None,
        notes=tuple(notes),
    )


def _scaled(progress: Progress | None, done: int, total: int) -> Progress:
    def report(label: str, share: float) -> None:
        if progress is not None:
            progress(label, (done + share) / total)

    return report


def _child(
    kind: str, counts: tuple[int, ...], size: int, left_s: float, progress: Progress
) -> tuple[list[MeasuredRate], str]:
    """Run one child; returns its rates in the order of `counts`, and why some are missing.

    Does not raise if the child fails.
    """
    if left_s < _SHARE_SECONDS:
        return [], "left out, the time limit was reached"
    listed = ",".join(str(n) for n in counts)
    rates: list[MeasuredRate] = []
    error = "the measuring process ended early, because of the time limit or a signal"
    try:
        with spawn.start(
            __spec__.name,
            kind,
            listed,
            str(size),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            # The timer kills a stuck child, whose output then ends, and with it the loop below.
            timer = threading.Timer(left_s, child.kill)
            timer.name = "measure-timeout"
            timer.start()
            try:
                assert child.stdout is not None
                for text in child.stdout:
                    line = msgspec.json.decode(text, type=OutputLine)
                    share = (counts.index(line.n_threads) + line.share) / len(counts)
                    if line.result is not None:
                        rates.append(MeasuredRate(line.n_threads, round(line.result, 2)))
                    error = line.error or error
                    progress(f"{kind}, {line.n_threads} thread(s)", share)
            finally:
                child.kill()  # done already, or invalid output: do not wait for the rest
                timer.cancel()
                timer.join()
    except (OSError, ValueError, msgspec.MsgspecError) as failure:  # invalid output
        error = f"the measuring process failed: {failure}"
    return rates, error


def read_rate(path: Path, *, limit_s: float = 1.0, max_bytes: int = 256 * _MIB) -> float | None:
    """Sequential read of a file in MB/s (10^6), from the disk rather than the page cache.

    The file's cached pages are dropped first. The kernel keeps pages that are dirty or mapped by another
    process, so the result is too high for a loaded model. None if the file cannot be read.
    """
    buffer = memoryview(bytearray(4 * _MIB))
    try:
        with path.open("rb", buffering=0) as file:
            with contextlib.suppress(OSError, AttributeError):  # not on every system
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            n_read = 0
            while n_read < max_bytes and time.perf_counter() - start < limit_s:
                got = file.readinto(buffer)
                if not got:
                    break
                n_read += got
            elapsed_s = time.perf_counter() - start
    except OSError:
        return None
    return round(n_read / elapsed_s / 1e6, 1) if n_read and elapsed_s > 0 else None


def memory_rate(n_threads: int, size: int, seconds: float, tick: Callable[[float], None]) -> float:
    """Bytes read per second by `n_threads` threads over one buffer of `size` bytes, in GB/s.

    The best of the passes that fit into `seconds`. `max` reads without writing, and numpy releases the
    interpreter lock meanwhile, so threads run in parallel.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    data = np.ones(
        size // 4, dtype=np.float32
    )  # ones: untouched zero pages would all map to one page
    parts = np.array_split(data, n_threads)
    best = 0.0
    start = time.perf_counter()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="measure") as pool:
        while (elapsed := time.perf_counter() - start) < seconds or not best:
            tick(elapsed / seconds)
            before = time.perf_counter()
            list(pool.map(np.maximum.reduce, parts))
            best = max(best, data.nbytes / (time.perf_counter() - before))
    return best / 1e9


def gemm_rate(seconds: float, tick: Callable[[float], None]) -> float:
    """float32 [768, 768] matrix products in GFLOP/s, the best that fits into `seconds`.

    The thread count is BLAS's own, set before numpy was loaded.
    """
    import numpy as np

    left = np.full((_GEMM_SIZE, _GEMM_SIZE), 0.5, dtype=np.float32)
    right = np.full((_GEMM_SIZE, _GEMM_SIZE), 0.25, dtype=np.float32)
    out = left @ right  # starts the BLAS threads and allocates memory
    best = 0.0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not best:
        tick(elapsed / seconds)
        before = time.perf_counter()
        np.matmul(left, right, out=out)
        best = max(best, 2 * _GEMM_SIZE**3 / (time.perf_counter() - before))
    return best / 1e9


def main(arguments: list[str]) -> int:
    """The child process: `memory|gemm 1,2,4 buffer_bytes`, JSON lines on standard output.

    gemm takes one count only, since BLAS reads its thread count once.
    """
    kind, size = arguments[0], int(arguments[2])
    counts = [int(text) for text in arguments[1].split(",")]
    # putenv, not our own environment: only the BLAS reads these, when numpy loads it below.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.putenv(name, str(counts[0] if kind == "gemm" else 1))
    for n_threads in counts:
        try:
            tick = _ticker(n_threads)
            if kind == "memory":
                result = memory_rate(n_threads, size, _SHARE_SECONDS, tick)
            else:
                result = gemm_rate(_SHARE_SECONDS, tick)
        except (ImportError, MemoryError) as error:
            _print(OutputLine(n_threads, error=f"{type(error).__name__}: {error}"))
            return 1
        _print(OutputLine(n_threads, share=1.0, result=result))
    return 0


def _ticker(n_threads: int) -> Callable[[float], None]:
    """Prints progress after every fifth of the work; more lines would disturb the measurement."""
    reported = 0.0

    def tick(share: float) -> None:
        nonlocal reported
        if share - reported >= 0.2:
            reported = share
            _print(OutputLine(n_threads, share=round(min(share, 1.0), 2)))

    return tick


def _print(line: OutputLine) -> None:
    print(msgspec.json.encode(line).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
