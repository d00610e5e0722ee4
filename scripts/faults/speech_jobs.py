"""kill -9 of the speech worker and the daemon while a long transcription job runs. Prints two tables.

    scripts/faults/speech_jobs.py [--kills N] [--seconds N] [--minutes N ...] [--audio FILE ...] [--seed N]

A recording of `--seconds` is made of the files by repetition (default: the tests' dialogue) and transcribed
as a job twice: once without a break, once with N kills at random moments of the upload, the survey and the
windows, each of the worker or of the daemon, which is started again. With `--minutes`,
recordings of these lengths are also transcribed without a break, for time and memory. The exit status is 1
if the transcripts differ, a segment is missing or comes twice, or a recording is left on the disk.

What the model samples at a temperature differs from run to run, with and without kills, and so does what
follows: transcripts are compared up to the first segment that was sampled in either.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.speech.audio import RATE_HZ, Samples, blocks
from tests.conftest import CACHE, DaemonProcess, serving, wait_for
from tests.speech.recordings import coded, long_dialogue

PART_BYTES = 1 << 20
PART_TYPE = "application/offset+octet-stream"


@dataclass(frozen=True)
class Kill:
    """Of the worker or the daemon, `delay_s` after so much was uploaded (a part of it, below 1) and then
    transcribed (seconds)."""

    what: Literal["worker", "daemon"]
    uploaded: float
    transcribed_s: float
    delay_s: float = 0.0


@dataclass
class Outcome:
    """A job that has completed. `peaks`: peak memory in bytes of the last daemon and its worker."""

    segments: list[dict[str, Any]] = field(default_factory=list)
    took_s: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    n_files: int = 0


def recording(seconds: float, files: Sequence[Path] = ()) -> bytes:
    """These files, or the dialogue, one after another and again and again, so long, as FLAC."""
    if files:
        pause = np.zeros((1, RATE_HZ), dtype=np.float32)
        parts = [mixed(path) for path in files]
        once = np.concatenate([p for part in parts for p in (part, pause)], axis=1)
    else:
        once = long_dialogue(1)
    n = round(seconds * RATE_HZ)
    samples = np.tile(once, math.ceil(n / once.shape[1]))[:, :n]
    return coded(np.ascontiguousarray(samples), "flac", "flac")


def mixed(path: Path) -> Samples:
    """A file on one channel: float32 [1, n_samples]."""
    return np.concatenate(list(blocks(path.read_bytes())), axis=1).mean(axis=0)[None]


def transcribe(
    models_dir: Path, state_dir: Path, data: bytes, kills: Sequence[Kill] = (), **settings: Any
) -> Outcome:
    """Run one job to its end, through the kills, in their order."""
    found, waiting, job = Outcome(), list(kills), ""
    started_s = time.monotonic()
    while True:
        with (
            serving(models_dir, state_dir, preload=False, **settings) as daemon,
            httpx.Client(base_url=f"{daemon.url}/v1/audio/jobs", timeout=600) as http,
        ):
            if not job:
                job = http.post("", json={"bytes": len(data)}).raise_for_status().json()["id"]
            try:
                if not upload(http, job, data, waiting, daemon, found):
                    continue
                if not follow(http, job, waiting, daemon, found):
                    continue
            except httpx.TransportError:
                if daemon.process.poll() is None:
                    raise
                continue  # the daemon was killed in the middle of an answer
            found.took_s = time.monotonic() - started_s
            params = {"response_format": "verbose_json"}
            result = http.get(f"/{job}/result", params=params).raise_for_status().json()
            found.segments = result["segments"]
            found.peaks["daemon"] = peak(daemon.pid)
            found.peaks["worker"] = max((peak(pid) for pid in workers(daemon)), default=0)
            found.n_files = len(list((state_dir / "store" / "recordings").iterdir()))
            return found


def upload(
    http: httpx.Client, job: str, data: bytes, waiting: list[Kill], daemon: DaemonProcess, found: Outcome
) -> bool:  # fmt: skip
    """Send what is missing of the recording, and start the job. False: the daemon was killed."""
    if http.get(f"/{job}").json()["status"] != "uploading":
        return True
    at = int(http.head(f"/{job}/recording").headers["upload-offset"])
    while at < len(data):
        if waiting and waiting[0].uploaded * len(data) <= at and waiting[0].uploaded < 1:
            carry_out(waiting.pop(0), daemon, found)
            if daemon.process.poll() is not None:
                return False
        headers = {"Content-Type": PART_TYPE, "Upload-Offset": str(at)}
        sent = http.patch(
            f"/{job}/recording", content=data[at : at + PART_BYTES], headers=headers
        ).raise_for_status()
        at = int(sent.headers["upload-offset"])
    http.post(f"/{job}/start", json={}).raise_for_status()
    return True


def follow(
    http: httpx.Client, job: str, waiting: list[Kill], daemon: DaemonProcess, found: Outcome
) -> bool:
    """Wait for the end, and kill where that is due. False: the daemon was killed."""
    for event in events(http, job):
        if event["type"] in ("audio.job.failed", "audio.job.cancelled", "error"):
            raise SystemExit(f"the job ended otherwise: {event}")
        if event["type"] != "audio.job.progress" or event["status"] != "running":
            continue
        if waiting and event["transcribed"] >= waiting[0].transcribed_s:
            carry_out(waiting.pop(0), daemon, found)
            if daemon.process.poll() is not None:
                return False
    return True


def events(http: httpx.Client, job: str) -> Iterator[dict[str, Any]]:
    with http.stream("GET", f"/{job}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def carry_out(kill: Kill, daemon: DaemonProcess, found: Outcome) -> None:
    time.sleep(kill.delay_s)
    if kill.what == "daemon":
        daemon.process.kill()
        daemon.process.wait()
        found.kills["daemon"] += 1
    else:
        wait_for(lambda: workers(daemon))
        for pid in workers(daemon):
            os.kill(pid, signal.SIGKILL)
            found.kills["worker"] += 1


def workers(daemon: DaemonProcess) -> list[int]:
    found = []
    for child in psutil.Process(daemon.pid).children():
        try:
            if "edgeagent.speech.worker" in child.cmdline():
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def peak(pid: int) -> int:
    """Peak resident memory of a process in bytes."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0


def random_kills(n: int, seconds: float, seed: int) -> list[Kill]:
    """One during the upload; the others at random moments of the survey and the windows."""
    draw = random.Random(seed)
    moments = sorted(draw.uniform(0.0, 0.95 * seconds) for _ in range(n - 1))
    kills = [Kill("daemon", draw.random(), 0.0)] if n else []
    for moment in moments:
        what: Literal["worker", "daemon"] = "worker" if draw.random() < 0.5 else "daemon"
        kills.append(Kill(what, 1.0, moment, draw.uniform(0.0, 1.5)))
    return kills


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """What is wrong with a transcript, in words; segments are compared with all that is known of them."""
    wrong = []
    n = n_certain(expected, found)
    whole = len(expected.segments), len(found.segments)
    n_different = sum(
        one != other for one, other in zip(expected.segments[:n], found.segments[:n], strict=False)
    )
    if n_different or (n == max(whole) and len(set(whole)) > 1):
        wrong.append(f"{whole[1]} segments instead of {whole[0]}, {n_different} different")
    starts = [segment["start"] for segment in found.segments]
    if len(set(starts)) != len(starts) or starts != sorted(starts):
        wrong.append("a segment comes twice, or out of order")
    if found.n_files:
        wrong.append(f"{found.n_files} recordings are left on the disk")
    return wrong


def n_certain(*outcomes: Outcome) -> int:
    """How many segments come before the first one that any of them has sampled."""
    sampled = [
        i
        for outcome in outcomes
        for i, segment in enumerate(outcome.segments)
        if segment["temperature"] > 0
    ]
    return min(sampled, default=max(len(outcome.segments) for outcome in outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--minutes", type=float, nargs="*", default=[])
    parser.add_argument("--audio", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    args = parser.parse_args()
    console = Console()
    wrong: list[str] = []
    lengths: dict[float, Outcome] = {}

    def run(seconds: float, kills: Sequence[Kill] = ()) -> Outcome:
        with tempfile.TemporaryDirectory() as state:
            return transcribe(args.models_dir, Path(state), recording(seconds, args.audio), kills)

    for minutes in args.minutes:
        lengths[60 * minutes] = run(60 * minutes)
    if args.kills:
        if args.seconds not in lengths:
            lengths[args.seconds] = run(args.seconds)
        expected = lengths[args.seconds]
        found = run(args.seconds, random_kills(args.kills, args.seconds, args.seed))
        wrong = differences(expected, found)
        table = Table("job", "kills of workers", "of daemons", "segments", "compared", "took s")
        for name, one in (("without a break", expected), ("killed", found)):
            table.add_row(
                name, str(one.kills["worker"]), str(one.kills["daemon"]), str(len(one.segments)),
                str(n_certain(expected, found)), f"{one.took_s:.0f}",
            )  # fmt: skip
        console.print(table)
    table = Table("audio s", "took s", "real-time factor", "daemon MB at most", "worker MB at most")
    for seconds, one in sorted(lengths.items()):
        megabytes = [f"{one.peaks.get(name, 0) / 1e6:.0f}" for name in ("daemon", "worker")]
        table.add_row(
            f"{seconds:.0f}", f"{one.took_s:.0f}", f"{one.took_s / seconds:.4f}", *megabytes
        )
    console.print(table)
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
