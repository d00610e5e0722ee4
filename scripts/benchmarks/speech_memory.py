"""`scripts/bench speech-memory`: memory of daemon and speech worker over many requests and long files.

    --requests 200      of mixed length, one after another; memory after a tenth of them, half and all, and
                        after the model was unloaded
    --minutes 10 20 60  recordings of these lengths, each uploaded in one request to a daemon of its own
    --chats 5           chats during a job, with a budget that has room for one of the two models
    --clinic DIR        recordings to cut and to repeat; without them, the dialogue of the tests

Memory of requests is what is resident once an answer is complete, the most of ten answers, since their
lengths differ; of long recordings the most that was ever.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import time
from collections import deque
from pathlib import Path

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from edgeagent.speech.audio import RATE_HZ, Samples
from scripts.benchmarks import machine
from scripts.benchmarks.chat_rate import MODEL as CHAT_MODEL
from scripts.benchmarks.noises import wav
from scripts.benchmarks.served import Served, serving
from scripts.benchmarks.speech import MODEL, SHARED
from scripts.faults.speech_jobs import PART_BYTES, PART_TYPE, mixed, peak, recording
from tests.speech.recordings import long_dialogue

MAX_UPLOAD_BYTES = 512 << 20
LENGTHS_S = (0.5, 2.0, 5.0, 12.0, 30.0)
# The worker returns free memory once its answer has been sent.
SETTLE_S = 0.3
# The recording of the job that gives way, and what the log says of a model that was loaded.
JOB_S = 300.0
NEED = re.compile(r"loaded model=(\S+) .*need_bytes=(\d+)")
WORKER = "edgeagent.speech.worker"
console = Console()


def clinic_files(clinic: Path) -> list[Path]:
    found = sorted(clinic.glob("visit*")) if clinic.is_dir() else []
    return [path for path in found if path.suffix != ".json"]


def measure_requests(models_dir: Path, clinic: Path, n: int) -> None:
    draw = random.Random(1)
    files = clinic_files(clinic)
    samples = mixed(files[0]) if files else long_dialogue(2)
    table = Table("after", "worker", "daemon")
    sizes: list[int] = []
    lately: deque[tuple[int, int]] = deque(maxlen=10)
    with (
        serving(models_dir, preload=False) as daemon,
        httpx.Client(base_url=daemon.url, timeout=600) as http,
    ):
        daemon_before = _resident_bytes(daemon.process.pid)
        for i in range(1, n + 1):
            post(http, wav(_cut(samples, draw)))
            time.sleep(SETTLE_S)
            lately.append(_resident(daemon))
            if i in (n // 10, n // 2, n):
                worker, own = map(max, zip(*lately, strict=True))
                sizes.append(worker)
                table.add_row(f"{i} requests", _mb(worker), _mb(own))
        http.post(f"/v1/models/{MODEL}/unload").raise_for_status()
        while daemon.children(WORKER):
            time.sleep(0.05)
        table.add_row("unloading", "0 MB", _mb(_resident_bytes(daemon.process.pid)))
    console.print(table)
    console.print(
        f"worker: {sizes[-1] / sizes[0] - 1:+.1%} from {n // 10} to {n} requests; the daemon had "
        f"{_mb(daemon_before)} before the first"
    )


def _cut(samples: Samples, draw: random.Random) -> Samples:
    """A stretch of one of the lengths: float32 [1, n_samples]."""
    size = round(draw.choice(LENGTHS_S) * RATE_HZ)
    at = draw.randrange(max(1, samples.shape[1] - size))
    return np.ascontiguousarray(samples[:, at : at + size])


def post(http: httpx.Client, data: bytes) -> None:
    form = {"model": MODEL, "response_format": "verbose_json"}
    http.post(
        "/v1/audio/transcriptions", files={"file": ("recording", data)}, data=form
    ).raise_for_status()


def _resident(daemon: Served) -> tuple[int, int]:
    (worker,) = daemon.children(WORKER)
    return _resident_bytes(worker.pid), _resident_bytes(daemon.process.pid)


def _resident_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def measure_lengths(models_dir: Path, clinic: Path, minutes: list[float]) -> None:
    table = Table(
        "audio", "file", "took", "real-time factor", "worker at most", "daemon at most", "load"
    )
    for length in minutes:
        data = recording(60 * length, clinic_files(clinic))
        with (
            serving(
                models_dir, preload=False, **{"speech.max_upload_bytes": MAX_UPLOAD_BYTES}
            ) as daemon,
            httpx.Client(base_url=daemon.url, timeout=24 * 3600) as http,
        ):
            started_s = time.monotonic()
            post(http, data)
            took_s = time.monotonic() - started_s
            (worker,) = daemon.children(WORKER)
            table.add_row(
                f"{60 * length:.0f} s", _mb(len(data)), f"{took_s:.0f} s",
                f"{took_s / 60 / length:.4f}", _mb(peak(worker.pid)), _mb(peak(daemon.process.pid)),
                f"{os.getloadavg()[0]:.1f}",
            )  # fmt: skip
    console.print(table)


def measure_giving_way(models_dir: Path, clinic: Path, n_chats: int) -> None:
    """How long a chat waits for its first token while a job has the memory that its model needs."""
    data = recording(JOB_S, clinic_files(clinic))
    needs: dict[str, int] = {}
    with serving(models_dir, preload=False) as daemon:
        for model in (MODEL, CHAT_MODEL):
            httpx.post(f"{daemon.url}/v1/models/{model}/load", timeout=120).raise_for_status()
        for name, need in NEED.findall(daemon.log.read_text()):
            needs[name] = int(need)
    budget = max(needs.values()) + min(needs.values()) // 2
    with (
        serving(models_dir, preload=False, **{"pool.ram_budget_bytes": budget}) as daemon,
        httpx.Client(base_url=daemon.url, timeout=600) as http,
    ):
        job = http.post("/v1/audio/jobs", json={"bytes": len(data)}).raise_for_status().json()["id"]
        for at in range(0, len(data), PART_BYTES):
            headers = {"Content-Type": PART_TYPE, "Upload-Offset": str(at)}
            part = data[at : at + PART_BYTES]
            http.patch(f"/v1/audio/jobs/{job}/recording", content=part, headers=headers)
        http.post(f"/v1/audio/jobs/{job}/start", json={}).raise_for_status()
        waits_s = []
        for _ in range(n_chats):
            # The speech model is loaded again: behind the window that the chat before has waited for.
            _wait_for_window(http, job, _transcribed_s(http, job))
            waits_s.append(_first_token_s(http))
        found = _wait_for_window(http, job, JOB_S - 30.0)
        n_loads = daemon.log.read_text().count(f" loaded model={MODEL} ")
    table = Table("chats", "first token p50", "at most", "loads of the speech model", "job heard")
    table.add_row(
        str(n_chats), f"{statistics.median(waits_s):.1f} s", f"{max(waits_s):.1f} s", str(n_loads),
        f"{found:.0f} of {JOB_S:.0f} s",
    )  # fmt: skip
    console.print(table)


def _transcribed_s(http: httpx.Client, job: str) -> float:
    return http.get(f"/v1/audio/jobs/{job}").json()["transcribed"] or 0.0


def _wait_for_window(http: httpx.Client, job: str, heard_s: float) -> float:
    """Wait until more than `heard_s` seconds of a job are transcribed."""
    while True:
        found = http.get(f"/v1/audio/jobs/{job}").json()
        if found["status"] not in ("queued", "running", "completed"):
            raise SystemExit(f"the job ended otherwise: {found}")
        if (found["transcribed"] or 0.0) > heard_s or found["status"] == "completed":
            return float(found["transcribed"])
        time.sleep(0.05)


def _first_token_s(http: httpx.Client) -> float:
    started_s = time.monotonic()
    body = {
        "model": CHAT_MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True,
        "max_tokens": 4,
    }  # fmt: skip
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if '"content"' in line:
                return time.monotonic() - started_s
    raise SystemExit("the chat had no token")


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--clinic", type=Path, default=SHARED / "clinic")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--chats", type=int, default=0)
    parser.add_argument("--minutes", type=float, nargs="*", default=[])
    args = parser.parse_args()
    console.print(f"{machine.describe()}, {MODEL}, load {os.getloadavg()[0]:.1f}")
    if args.requests:
        measure_requests(args.models_dir, args.clinic, args.requests)
    if args.chats:
        measure_giving_way(args.models_dir, args.clinic, args.chats)
    if args.minutes:
        measure_lengths(args.models_dir, args.clinic, args.minutes)
