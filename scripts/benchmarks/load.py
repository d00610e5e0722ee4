"""A load on an OpenAI-compatible server over loopback: `python -m scripts.benchmarks.load ...`.

Prints one JSON line. Every request is streamed and asks for `ignore_eos`, so that two servers or two
runs do the same work. Bounded: at most 64 clients and 1,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from typing import Any

import httpx

TEXT = (
    "tide copper lamp orchard signal meadow ferry anchor violin bridge paper kettle harbour stone "
    "window basket morning engine thread silver pocket garden letter candle market river number"
)
WORDS = TEXT.split()


def prose(n_words: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


def messages(workload: str, client: int, request: int) -> list[dict[str, str]]:
    question = f"Question {client}-{request}: {prose(12, 100 * client + request)}?"
    if workload == "prefix":
        return [{"role": "system", "content": prose(900, 3)}, {"role": "user", "content": question}]
    return [{"role": "user", "content": question}]


async def one(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request; when its tokens came, in seconds of the monotonic clock.

    Events are stamped as they arrive and parsed when the stream has ended: the client runs on the
    cores that it measures.
    """
    sent = time.perf_counter()
    arrived: list[tuple[float, bytes]] = []
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread())[:300]!r}")
        async for data in response.aiter_raw():
            arrived.append((time.perf_counter(), data))
    stamps: list[float] = []
    usage: dict[str, Any] = {}
    for stamp, data in arrived:
        for line in data.split(b"\n\n"):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(event["error"])
            usage = event.get("usage") or usage
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                stamps.append(stamp)
    return {"sent": sent, "stamps": stamps, "n": usage["completion_tokens"], "usage": usage}


async def client(http: httpx.AsyncClient, args: argparse.Namespace, k: int) -> list[dict[str, Any]]:
    return [
        await one(
            http,
            {
                "messages": messages(args.workload, k + args.salt, request),
                "max_tokens": args.max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
        for request in range(args.requests)
    ]


def decode_rate(results: list[dict[str, Any]]) -> float:
    """Tokens per second while every stream was decoding: from the last first token to the first end.

    Pieces after the first may hold several tokens: each counts as the server's own count says on average.
    """
    begin = max(r["stamps"][0] for r in results)
    end = min(r["stamps"][-1] for r in results)
    n = sum(
        sum(begin < stamp <= end for stamp in r["stamps"]) * (r["n"] - 1) / (len(r["stamps"]) - 1)
        for r in results
    )
    return n / (end - begin)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=args.clients + 2)
    async with httpx.AsyncClient(base_url=args.url, timeout=300, limits=limits) as http:
        started = time.perf_counter()
        groups = await asyncio.gather(*(client(http, args, k) for k in range(args.clients)))
        wall = time.perf_counter() - started
    results = [result for group in groups for result in group]
    ttft = sorted(r["stamps"][0] - r["sent"] for r in results)
    gaps = sorted(
        b - a for r in results for a, b in zip(r["stamps"], r["stamps"][1:], strict=False)
    )
    last_round = [group[-1] for group in groups]
    return {
        "requests": len(results),
        "out_tok_s": sum(r["n"] for r in results) / wall,
        "decode_tok_s": decode_rate(last_round),
        "ttft_p50_s": statistics.median(ttft),
        "ttft_p95_s": ttft[min(len(ttft) - 1, int(0.95 * len(ttft)))],
        "itl_p50_s": statistics.median(gaps),
        "itl_p95_s": gaps[int(0.95 * len(gaps))],
        "prompt_tokens": results[0]["usage"]["prompt_tokens"],
        "cached_tokens": sum(r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--workload", choices=["chat", "prefix"], default="chat")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--salt", type=int, default=0, help="another number gives other questions")
    args = parser.parse_args()
    if args.clients > 64 or args.clients * args.requests > 1000:
        raise SystemExit("at most 64 clients and 1,000 requests")
    print(json.dumps(asyncio.run(run(args))))


if __name__ == "__main__":
    main()
