"""Mixed traffic for as long as you like: failures, and what grows.

    scripts/faults/soak.py [--minutes N] [--model smollm2-135m-instruct] [--interval SECONDS] [--clients N]

Clients chat, ask for JSON that fits a schema, go on with stored responses, make embeddings and send
recordings, each kind again and again. Meanwhile the memory and the descriptors of the daemon and of each
worker, and the size of the store, are measured. After the first quarter, in which caches fill, a line is laid
through the memory of each process. The exit status is 1 if a request failed, which refusals for lack of
room do not count as (429 and 503 with Retry-After), or a process ended. Models come from `.cache/models`
(`python -m tests.fetch`). Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import MINILM, SMOLLM, WHISPER, DaemonProcess, installed, serving

DIALOGUE = Path(__file__).resolve().parents[2] / "tests" / "data" / "dialogue.ogg"
WARM_UP = 0.25  # of the whole time
SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"type": "string", "maxLength": 20},
        "urgent": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["topic", "urgent", "count"],
    "additionalProperties": False,
}
WORDS = [
    "tide",
    "lamp",
    "orchard",
    "signal",
    "meadow",
    "ferry",
    "anchor",
    "violin",
    "bridge",
    "kettle",
]


@dataclass(frozen=True)
class Sample:
    """One look at a process. `n_files`: open descriptors."""

    at_s: float
    rss_bytes: int
    n_files: int


@dataclass
class Log:
    """What happened: answers by kind, failures with their text, refusals, looks by process, store sizes."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    store_bytes: list[tuple[float, int]] = field(default_factory=list)


def sentence(rng: random.Random) -> str:
    return (
        f"Question {rng.randrange(10**6)}: what about the {' and the '.join(rng.sample(WORDS, 4))}?"
    )


class Traffic:
    """The requests of one kind each; every method raises what a request fails with."""

    def __init__(self, http: httpx.AsyncClient, model: str, seed: int) -> None:
        self._http = http
        self._model = model
        self._rng = random.Random(seed)
        self._last_response: str | None = None
        self._n_turns = 0

    async def _post(self, path: str, **request: Any) -> httpx.Response:
        reply = await self._http.post(path, **request)
        reply.raise_for_status()
        return reply

    async def chat(self) -> None:
        body = {
            "model": self._model, "messages": [{"role": "user", "content": sentence(self._rng)}],
            "max_tokens": self._rng.randint(4, 48), "stream": True,
        }  # fmt: skip
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            lines = [line async for line in reply.aiter_lines() if line]
        if lines[-1] != "data: [DONE]":
            raise ValueError(f"a stream ended with {lines[-1][:200]}")

    async def schema(self) -> None:
        shape = {"name": "note", "strict": True, "schema": SCHEMA}
        body = {
            "model": self._model, "messages": [{"role": "user", "content": sentence(self._rng)}],
            "max_tokens": 64, "response_format": {"type": "json_schema", "json_schema": shape},
        }  # fmt: skip
        choice = (await self._post("/v1/chat/completions", json=body)).json()["choices"][0]
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)

    async def responses(self) -> None:
        body: dict[str, Any] = {"model": self._model, "input": sentence(self._rng)}
        body["max_output_tokens"] = 16
        if self._last_response is not None and self._n_turns < 4:
            body["previous_response_id"] = self._last_response
            self._n_turns += 1
        else:
            self._n_turns = 0
        self._last_response = (await self._post("/v1/responses", json=body)).json()["id"]

    async def embeddings(self) -> None:
        body = {"model": MINILM, "input": [sentence(self._rng) for _ in range(8)]}
        found = (await self._post("/v1/embeddings", json=body)).json()["data"]
        if len(found) != 8:
            raise ValueError(f"{len(found)} embeddings of 8 texts")

    async def speech(self) -> None:
        files = {"file": ("dialogue.ogg", DIALOGUE.read_bytes())}
        reply = await self._post("/v1/audio/transcriptions", data={"model": WHISPER}, files=files)
        if not reply.json()["text"].strip():
            raise ValueError("a recording became no text")


async def again_and_again(
    kind: str, ask: Callable[[], Awaitable[None]], log: Log, end_s: float, rng: random.Random
) -> None:
    while time.monotonic() < end_s:
        try:
            await ask()
        except httpx.HTTPStatusError as exc:
            wait = exc.response.headers.get("retry-after")
            if exc.response.status_code in (429, 503) and wait is not None:
                log.refused[kind] += 1
                await asyncio.sleep(min(10.0, float(wait)))
                continue
            log.failures.append(f"{kind}: {exc}")
        except Exception as exc:
            log.failures.append(f"{kind}: {type(exc).__name__}: {exc}"[:300])
        else:
            log.answered[kind] += 1
        await asyncio.sleep(rng.uniform(0.0, 0.5))


async def look(daemon: DaemonProcess, log: Log, end_s: float, interval_s: float) -> None:
    while time.monotonic() < end_s:
        await asyncio.to_thread(look_once, daemon, log)
        await asyncio.sleep(interval_s)


def look_once(daemon: DaemonProcess, log: Log) -> None:
    """Measure the daemon, its workers by what they run, and the store."""
    now = time.monotonic()
    root = psutil.Process(daemon.pid)
    for process in (root, *root.children()):
        try:
            title = process.cmdline()
            name = "daemon" if process is root else _name(title, process.pid)
            n_files = process.num_fds()
            log.samples[name].append(Sample(now, process.memory_info().rss, n_files))
        except psutil.NoSuchProcess:
            continue
    files = (path for path in (daemon.state_dir / "store").rglob("*") if path.is_file())
    log.store_bytes.append((now, sum(path.stat().st_size for path in files)))


def _name(command: list[str], pid: int) -> str:
    module = next((part for part in command if part.startswith("edgeagent.")), "process")
    return f"{module.removeprefix('edgeagent.')} {pid}"


def slope_mb_per_hour(points: list[tuple[float, int]]) -> float | None:
    """The slope of the line through (seconds, bytes) after the warm-up; None for too few points."""
    if not points:
        return None
    first, last = points[0][0], points[-1][0]
    kept = [(at, n) for at, n in points if at >= first + WARM_UP * (last - first)]
    if len(kept) < 5:
        return None
    slope, _ = statistics.linear_regression([at for at, _ in kept], [n for _, n in kept])
    return slope * 3600 / 1e6


async def soak(daemon: DaemonProcess, model: str, args: argparse.Namespace) -> Log:
    log, rng = Log(), random.Random(args.seed)
    end_s = time.monotonic() + 60 * args.minutes
    async with httpx.AsyncClient(base_url=daemon.url, timeout=300) as http:
        tasks = [look(daemon, log, end_s, args.interval)]
        for k in range(args.clients):
            traffic = Traffic(http, model, args.seed + k)
            for kind in ("chat", "schema", "responses", "embeddings", "speech"):
                ask = getattr(traffic, kind)
                tasks.append(again_and_again(kind, ask, log, end_s, rng))
        await asyncio.gather(*tasks)
        metrics = (await http.get("/metrics")).text
    n_deaths = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("edgeagent:worker_deaths_total")
    )
    if n_deaths or daemon.process.poll() is not None:
        log.failures.append(
            f"{n_deaths:.0f} workers died, the daemon's status is {daemon.process.poll()}"
        )
    return log


def report(log: Log, console: Console) -> None:
    table = Table("process", "looks", "MB first", "last", "most", "MB/hour", "files first", "last")
    for name, samples in log.samples.items():
        rss = [sample.rss_bytes / 1e6 for sample in samples]
        slope = slope_mb_per_hour([(sample.at_s, sample.rss_bytes) for sample in samples])
        table.add_row(
            name, str(len(samples)), f"{rss[0]:.1f}", f"{rss[-1]:.1f}", f"{max(rss):.1f}",
            "" if slope is None else f"{slope:+.1f}", str(samples[0].n_files), str(samples[-1].n_files),
        )  # fmt: skip
    console.print(table)
    sizes = [n / 1e6 for _, n in log.store_bytes]
    slope = slope_mb_per_hour(log.store_bytes)
    told = "" if slope is None else f", {slope:+.1f} MB/hour"
    console.print(f"store {sizes[0]:.2f} MB at first, {sizes[-1]:.2f} MB at last{told}")
    for kind, n in sorted(log.answered.items()):
        console.print(f"{kind}: {n} answered, {log.refused[kind]} refused for now")
    console.print(f"{len(log.failures)} failures")
    for failure, n in Counter(log.failures).most_common(5):
        console.print(f"  {n} x {failure}", markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model", default=SMOLLM)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--clients", type=int, default=1, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for model in (args.model, MINILM, WHISPER):
        models_dir = installed(model)
    with tempfile.TemporaryDirectory(prefix="edgeagent-soak-") as scratch:
        with serving(
            models_dir, Path(scratch, "state"), is_forked=False, default_model=args.model
        ) as daemon:
            daemon.wait_until_ready()
            log = asyncio.run(soak(daemon, args.model, args))
        report(log, Console(width=110))
    return 1 if log.failures else 0


if __name__ == "__main__":
    sys.exit(main())
