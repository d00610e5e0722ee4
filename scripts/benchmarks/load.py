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
TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": ["refund", "schedule", "complaint", "other"]},
        "customer_reference_number": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "urgent": {"type": "boolean"},
        "preferred_contact_channel": {"type": "string", "enum": ["telephone", "electronic_mail"]},
    },
    "required": ["intent", "customer_reference_number", "urgent", "preferred_contact_channel"],
    "additionalProperties": False,
}


def prose(n_words: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


def messages(workload: str, client: int, request: int) -> list[dict[str, str]]:
    question = f"Question {client}-{request}: {prose(12, 100 * client + request)}?"
    if workload == "prefix":
        return [{"role": "system", "content": prose(900, 3)}, {"role": "user", "content": question}]
    return [{"role": "user", "content": question}]


class Exchange(asyncio.Protocol):
    """One request on one connection; what comes back is stamped as it arrives and read afterwards.

    The client runs on the cores that it measures: a general HTTP client takes 140 us for each event,
    as much as the server.
    """

    def __init__(self) -> None:
        self.arrived: list[tuple[float, bytes]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.arrived.append((time.perf_counter(), data))
        if data.endswith(b"0\r\n\r\n") and not self.done.done():  # the last chunk
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def one(url: httpx.URL, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request; when its tokens came, in seconds of the monotonic clock."""
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    sent = time.perf_counter()
    transport, exchange = await loop.create_connection(Exchange, url.host, url.port)
    transport.write(head.encode() + payload)
    try:
        async with asyncio.timeout(300):
            await exchange.done
    finally:
        transport.close()
    return {"sent": sent} | answer_of(exchange.arrived)


def answer_of(arrived: list[tuple[float, bytes]]) -> dict[str, Any]:
    """The stamps of the pieces, and the usage at the end."""
    if not arrived or not arrived[0][1].startswith(b"HTTP/1.1 200"):
        raise SystemExit(b"".join(data for _, data in arrived)[:600].decode("utf-8", "replace"))
    stamps: list[float] = []
    usage: dict[str, Any] = {}
    text: list[str] = []
    rest = b""
    for stamp, data in arrived:
        # A piece counts when its end is there; an event may be cut by the network anywhere.
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(event["error"])
            usage = event.get("usage") or usage
            if event["choices"] and (piece := event["choices"][0]["delta"].get("content")):
                stamps.append(stamp)
                text.append(piece)
    text_whole = "".join(text)
    return {"stamps": stamps, "n": usage["completion_tokens"], "usage": usage, "text": text_whole}


async def client(url: httpx.URL, args: argparse.Namespace, k: int) -> list[dict[str, Any]]:
    shape = {}
    if args.workload == "json":
        ticket = {"name": "ticket", "strict": True, "schema": TICKET}
        shape = {"response_format": {"type": "json_schema", "json_schema": ticket}}
    return [
        await one(
            url,
            {
                "messages": messages(args.workload, k + args.salt, request),
                "max_tokens": args.max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            | shape,
        )
        for request in range(args.requests)
    ]


def decode_rate(results: list[dict[str, Any]]) -> float | None:
    """Tokens per second while every stream was decoding: from the last first token to the first end.

    Pieces after the first may hold several tokens: each counts as the server's own count says on average.
    None where an answer came in one piece.
    """
    if any(len(r["stamps"]) < 2 for r in results):
        return None
    begin = max(r["stamps"][0] for r in results)
    end = min(r["stamps"][-1] for r in results)
    n = sum(
        sum(begin < stamp <= end for stamp in r["stamps"]) * (r["n"] - 1) / (len(r["stamps"]) - 1)
        for r in results
    )
    return n / (end - begin) if end > begin else None


async def run(args: argparse.Namespace) -> dict[str, Any]:
    url = httpx.URL(args.url)
    started = time.perf_counter()
    groups = await asyncio.gather(*(client(url, args, k) for k in range(args.clients)))
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
        "itl_p50_s": statistics.median(gaps) if gaps else None,
        "itl_p95_s": gaps[int(0.95 * len(gaps))] if gaps else None,
        "out_tokens": sum(r["n"] for r in results),
        "texts": [r["text"] for r in results] if args.workload == "json" else [],
        "prompt_tokens": results[0]["usage"]["prompt_tokens"],
        "cached_tokens": sum(r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--workload", choices=["chat", "prefix", "json"], default="chat")
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
