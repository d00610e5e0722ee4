"""A load on an OpenAI-compatible server over loopback: `python -m scripts.benchmarks.load ...`.

Prints one JSON line. Every request is streamed and asks for `ignore_eos`, so that two servers or two
runs do the same work. Bounded: at most 64 clients and 1,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks.workloads import WORKLOADS, Dialogue, shape

LAST_CHUNK = b"\r\n0\r\n\r\n"


class RequestFailed(SystemExit):
    """A request got no whole answer. Ends the program where nobody counts failures."""


class Exchange(asyncio.Protocol):
    """One request on one connection; what comes back is stamped as it arrives and read afterwards.

    The client runs on the cores that it measures: a general HTTP client takes 140 us for each event,
    as much as the server.
    """

    def __init__(self) -> None:
        self.arrived: list[tuple[float, bytes]] = []
        self._tail = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.arrived.append((time.perf_counter(), data))
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._tail == LAST_CHUNK and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def one(
    url: httpx.URL, body: dict[str, Any], leave_after_s: float | None = None
) -> dict[str, Any]:
    """Send a request; when its tokens came, in seconds of the monotonic clock.

    `leave_after_s`: the client reads that long and leaves; an answer that is not whole has no usage."""
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
        if leave_after_s is not None:
            await asyncio.wait([exchange.done], timeout=leave_after_s)
        else:
            async with asyncio.timeout(300):
                await exchange.done
    finally:
        transport.close()
    is_whole = leave_after_s is None
    return {"sent": sent} | answer_of(exchange.arrived, is_whole=is_whole)


def answer_of(arrived: list[tuple[float, bytes]], *, is_whole: bool = True) -> dict[str, Any]:
    """The stamps of the pieces, and the usage at the end. Raises: RequestFailed for an error, an answer
    without text, and one that `is_whole` and has no usage."""
    if not arrived or not arrived[0][1].startswith(b"HTTP/1.1 200"):
        raise RequestFailed(b"".join(data for _, data in arrived)[:600].decode("utf-8", "replace"))
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
                raise RequestFailed(event["error"])
            usage = event.get("usage") or usage
            if event["choices"] and (piece := event["choices"][0]["delta"].get("content")):
                stamps.append(stamp)
                text.append(piece)
    if not stamps or (is_whole and not usage):
        raise RequestFailed("The answer has no text, or ended before its usage.")
    n = usage.get("completion_tokens", len(stamps))
    return {"stamps": stamps, "n": n, "usage": usage, "text": "".join(text)}


async def client(url: httpx.URL, args: argparse.Namespace, k: int) -> list[dict[str, Any]]:
    """The answers of one client, without those that failed where failures are counted."""
    dialogue = Dialogue(args.workload, k + args.salt, args.shared)
    found = []
    for request in range(args.requests):
        body = {
            "messages": dialogue.messages(request),
            "max_tokens": args.max_tokens,
            "temperature": 0,
            "ignore_eos": args.workload != "json",  # with a schema, nothing may follow its end
            "stream": True,
            "stream_options": {"include_usage": True},
        } | shape(args.workload)
        if args.model:
            body["model"] = args.model
        try:
            answer = await one(url, body)
        except (RequestFailed, TimeoutError):
            if args.on_failure == "end":
                raise
            continue
        dialogue.answered(answer["text"])
        found.append(answer)
    return found


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


def latencies(results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Seconds to the first piece of an answer, and between two; of these None where no answer has two."""
    ttft = sorted(r["stamps"][0] - r["sent"] for r in results)
    gaps = sorted(
        b - a for r in results for a, b in zip(r["stamps"], r["stamps"][1:], strict=False)
    )
    return {
        "ttft_p50_s": statistics.median(ttft),
        "ttft_p95_s": ttft[min(len(ttft) - 1, int(0.95 * len(ttft)))],
        "itl_p50_s": statistics.median(gaps) if gaps else None,
        "itl_p95_s": gaps[int(0.95 * len(gaps))] if gaps else None,
    }


def record(path: Path, groups: list[list[dict[str, Any]]], started_s: float) -> None:
    """Write the arrivals for `scripts/bench simulate`: a line for each request, by client."""
    with path.open("a") as file:
        for number, group in enumerate(groups):
            ended_s = started_s
            for result in group:
                usage = result["usage"]
                line = {
                    "client": number,
                    "gap_s": round(max(0.0, result["sent"] - ended_s), 4),
                    "n_prompt": usage["prompt_tokens"],
                    "n_cached": _n_cached(result),
                    "n_output": result["n"],
                }
                file.write(json.dumps(line) + "\n")
                ended_s = result["stamps"][-1]


def _n_cached(result: dict[str, Any]) -> int:
    details = result["usage"].get("prompt_tokens_details") or {}
    return int(details.get("cached_tokens", 0))


async def run(args: argparse.Namespace) -> dict[str, Any]:
    url = httpx.URL(args.url)
    started = time.perf_counter()
    groups = await asyncio.gather(*(client(url, args, k) for k in range(args.clients)))
    wall = time.perf_counter() - started
    results = [result for group in groups for result in group]
    if args.record is not None:
        record(args.record, groups, started)
    n_failed = args.clients * args.requests - len(results)
    if not results:
        raise SystemExit("Every request failed.")
    last_round = [group[-1] for group in groups if group]
    return {
        "requests": len(results),
        "failed": n_failed,
        "out_tok_s": sum(r["n"] for r in results) / wall,
        "decode_tok_s": decode_rate(last_round),
        **latencies(results),
        "out_tokens": sum(r["n"] for r in results),
        "texts": [r["text"] for r in results] if args.workload == "json" else [],
        "prompt_tokens": results[0]["usage"]["prompt_tokens"],
        "all_tok_s": sum(r["n"] + r["usage"]["prompt_tokens"] for r in results) / wall,
        "cached_tokens": sum(_n_cached(r) for r in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--workload", choices=WORKLOADS, default="chat")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--salt", type=int, default=0, help="another number gives other questions")
    parser.add_argument("--shared", type=int, default=3, help="another number, another prefix")
    parser.add_argument("--model", help="the model's id; by default the request names none")
    parser.add_argument("--record", type=Path, metavar="FILE", help="add the arrivals to this file")
    parser.add_argument("--on-failure", choices=["end", "count"], default="end")
    args = parser.parse_args()
    if args.clients > 64 or args.clients * args.requests > 1000:
        raise SystemExit("at most 64 clients and 1,000 requests")
    print(json.dumps(asyncio.run(run(args))))


if __name__ == "__main__":
    main()
