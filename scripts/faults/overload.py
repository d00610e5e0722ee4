"""Fifty times more clients than places, and a batch beside somebody who waits.

    scripts/faults/overload.py [--seconds N] [--factor N] [--parts PART ...] [--model smollm2-135m-instruct]

1. one client alone: the time to the first token
2. the same client beside a batch that fills every slot; how far the batch got meanwhile
3. `factor` clients for each slot, each with a deadline; one that is refused comes back when it was told

Of the third part it counts the answers in time, those that came late, the honest refusals (429, 503 with
Retry-After, or 504) and everything else; and of the refused that came back, how many were told a time that
was right within 30%: what they were told, against when they were let in. The exit status is 1 if anything
was neither in time nor an honest refusal. Loopback only. Without `--model` the tiny model of the tests
answers, whose tokens cost next to nothing: then HTTP is the bottleneck. `--seconds` is for the third part;
the first two take three quarters of it. `--parts` runs the first two (batch) or the third (overload) alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import TALES_CHAT, DaemonProcess, installed, serving, write_stories
from tests.engine.family_templates import FAMILIES

N_SEQ = 4
QUEUE_LIMIT = 8
TIMEOUT_S = 20.0
# What an answer may take after it has begun: the deadline is for its beginning.
ANSWER_S = 60.0
N_ALONE = 20
N_TOKENS = 32  # of an answer under overload
RIGHT = 0.3
PARTS = ("batch", "overload")


@dataclass
class Outcome:
    """What became of the requests under overload. `told`: seconds that refused ones were told, after how many
    they were let in, and how often they were refused before."""

    n_in_time: int = 0
    n_late: int = 0
    n_refused: dict[int, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    told: list[tuple[float, float, int]] = field(default_factory=list)

    @property
    def n_right(self) -> int:
        return sum(is_right(told, let_in) for told, let_in, _ in self.told)

    def by_told(self) -> list[str]:
        """For each range of the times told: how many were right, and how often those were refused that were
        not."""
        lines = []
        for low, high in ((1, 1), (2, 3), (4, 7), (8, 120)):
            found = [one for one in self.told if low <= one[0] <= high]
            wrong = [one for one in found if not is_right(*one[:2])]
            if found:
                n = Counter(n_refused for *_, n_refused in wrong)
                right = share(len(found) - len(wrong), len(found))
                lines.append(
                    f"{low} to {high} s: {right} of {len(found)}; wrong ones by refusals: {dict(n)}"
                )
        return lines


def is_right(told_s: float, let_in_s: float) -> bool:
    return abs(let_in_s - told_s) <= RIGHT * told_s


def body(model: str, n: int, n_tokens: int) -> dict[str, Any]:
    words = f"Question {n}: what do the tide, the lamp and the orchard have in common?"
    return {
        "model": model, "messages": [{"role": "user", "content": words}], "max_tokens": n_tokens,
        "ignore_eos": True, "temperature": 0, "timeout": TIMEOUT_S,
    }  # fmt: skip


async def ttft_s(client: httpx.AsyncClient, ask: dict[str, Any]) -> float:
    """The time to the first token of a streamed answer."""
    began = time.perf_counter()
    first = None
    async with client.stream("POST", "/v1/chat/completions", json=ask | {"stream": True}) as reply:
        if reply.status_code != 200:
            await reply.aread()
            raise RuntimeError(f"{reply.status_code}: {reply.text}")
        async for line in reply.aiter_lines():
            if first is None and '"content":"' in line and '"content":""' not in line:
                first = time.perf_counter() - began
    return first if first is not None else time.perf_counter() - began


async def ttfts(client: httpx.AsyncClient, model: str, seconds: float) -> list[float]:
    """Times of one client that asks, waits a moment, and asks again."""
    found: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found) < N_ALONE:
        found.append(await ttft_s(client, body(model, 1000 + len(found), 8)))
        await asyncio.sleep(0.1)
    return found


async def beside_batch(
    client: httpx.AsyncClient, model: str, seconds: float
) -> tuple[list[float], dict[str, int]]:
    """Times beside a batch, and how much of it was done meanwhile."""
    lines = [
        json.dumps({
            "custom_id": str(n), "method": "POST", "url": "/v1/chat/completions",
            "body": {k: v for k, v in body(model, n, 64).items() if k != "timeout"},
        })
        for n in range(int(40 + 4 * seconds))
    ]  # fmt: skip
    sent = await client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("b.jsonl", "\n".join(lines))}
    )
    request = {"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions"}
    batch_id = (await client.post("/v1/batches", json=request)).json()["id"]
    await asyncio.sleep(1.0)
    found = await ttfts(client, model, seconds)
    batch = (await client.get(f"/v1/batches/{batch_id}")).json()
    await client.post(f"/v1/batches/{batch_id}/cancel")
    return found, batch["request_counts"]


async def one_client(
    client: httpx.AsyncClient, model: str, number: int, end_s: float, outcome: Outcome
) -> None:
    """Asks until the end; comes back when it was told after a refusal."""
    n = 0
    refused: tuple[float, float] | None = None  # when, and for how long
    n_retries = 0  # told as the official SDKs do
    while time.monotonic() < end_s:
        ask = body(model, 10_000 * number + n, N_TOKENS)
        began = time.monotonic()
        try:
            headers = {"x-stainless-retry-count": str(n_retries)}
            reply = await client.post("/v1/chat/completions", json=ask, headers=headers)
        except httpx.HTTPError as exc:
            outcome.others.append(type(exc).__name__)
            continue
        took_s = time.monotonic() - began
        wait = reply.headers.get("retry-after")
        if reply.status_code in (429, 503) and wait is not None:
            outcome.n_refused[reply.status_code] = outcome.n_refused.get(reply.status_code, 0) + 1
            if refused is None:
                refused = (began + took_s, float(wait))
            n_retries += 1
            await asyncio.sleep(float(wait))
            continue
        if refused is not None:  # it was let in, whatever became of it then
            outcome.told.append((refused[1], began - refused[0], n_retries))
            refused = None
        n_retries = 0
        if reply.status_code == 504:
            outcome.n_refused[504] = outcome.n_refused.get(504, 0) + 1
        elif reply.status_code == 200 and took_s <= TIMEOUT_S + ANSWER_S:
            began_s = reply.json()["timings"]["ttft_ms"] / 1e3
            outcome.n_in_time += began_s <= TIMEOUT_S + 1
            outcome.n_late += began_s > TIMEOUT_S + 1
        else:
            outcome.others.append(f"{reply.status_code} {reply.text[:80]}")
        n += 1


async def overload(
    client: httpx.AsyncClient, model: str, n_clients: int, seconds: float
) -> Outcome:
    outcome = Outcome()
    end_s = time.monotonic() + seconds
    await asyncio.gather(
        *(one_client(client, model, number, end_s, outcome) for number in range(n_clients))
    )
    return outcome


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


async def run(daemon: DaemonProcess, model: str, given: argparse.Namespace) -> int:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx.Timeout(TIMEOUT_S + ANSWER_S, pool=None)
    table, outcome = Table("what", "figure"), Outcome()
    async with httpx.AsyncClient(
        base_url=daemon.url, limits=limits, timeout=timeout, trust_env=False
    ) as client:
        await ttft_s(client, body(model, 0, 8))
        if "batch" in given.parts:
            alone = await ttfts(client, model, given.seconds / 4)
            beside, counts = await beside_batch(client, model, given.seconds / 2)
            for row in batch_rows(alone, beside, counts):
                table.add_row(*row)
        if "overload" in given.parts:
            n_clients = given.factor * N_SEQ
            outcome = await overload(client, model, n_clients, given.seconds)
            for row in overload_rows(outcome, n_clients, given.seconds):
                table.add_row(*row)
    Console(width=100).print(table)
    print("Retry-After right, by what was told:", *outcome.by_told(), sep="\n  ")
    return 1 if outcome.others or outcome.n_late else 0


def batch_rows(
    alone: list[float], beside: list[float], counts: dict[str, int]
) -> list[tuple[str, str]]:
    return [
        ("p95 TTFT alone", f"{1e3 * p95(alone):.0f} ms of {len(alone)}"),
        ("p95 TTFT beside a batch", f"{1e3 * p95(beside):.0f} ms of {len(beside)}"),
        ("beside over alone", f"{p95(beside) / p95(alone):.2f} (aim: 1.5)"),
        ("batch meanwhile", f"{counts['completed']} of {counts['total']} requests"),
    ]


def overload_rows(outcome: Outcome, n_clients: int, seconds: float) -> list[tuple[str, str]]:
    n_refused = sum(outcome.n_refused.values())
    n_all = outcome.n_in_time + outcome.n_late + n_refused + len(outcome.others)
    return [
        ("clients", f"{n_clients} for {N_SEQ} slots, {seconds:g} s"),
        ("requests", str(n_all)),
        ("answered in time", f"{outcome.n_in_time} ({share(outcome.n_in_time, n_all)})"),
        ("answered late", f"{outcome.n_late} ({share(outcome.n_late, n_all)})"),
        *(
            (f"refused with {status}", f"{n} ({share(n, n_all)})")
            for status, n in sorted(outcome.n_refused.items())
        ),
        ("anything else", f"{len(outcome.others)} {sorted(set(outcome.others))[:5]}"),
        (
            "Retry-After right within 30%",
            f"{outcome.n_right} of {len(outcome.told)} that were let in "
            f"({share(outcome.n_right, len(outcome.told))}; aim: 90%)",
        ),
    ]


def share(n: int, of: int) -> str:
    return f"{100 * n / of:.1f}%" if of else "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--factor", type=int, default=50, help="clients for each slot")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", help="one that the tests have installed; default: the tiny one")
    given = parser.parse_args()
    settings: dict[str, Any] = {"n_seq": N_SEQ, "queue_limit": QUEUE_LIMIT, "n_ctx": 4096}
    model = settings["default_model"] = given.model or TALES_CHAT
    with tempfile.TemporaryDirectory(prefix="edgeagent-overload-") as folder:
        if given.model:
            models_dir = installed(given.model)
        else:
            models_dir = Path(folder, "models")
            models_dir.mkdir()
            write_stories(models_dir / f"{TALES_CHAT}.gguf", FAMILIES["qwen2.5"].template, 8192)
        with serving(models_dir, Path(folder, "state"), is_forked=False, **settings) as daemon:
            return asyncio.run(run(daemon, model, given))


if __name__ == "__main__":
    sys.exit(main())
