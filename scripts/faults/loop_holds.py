"""Bodies within the bound of size that are the most work to refuse: how long each holds up everybody else.

    scripts/faults/loop_holds.py [--rounds N]

Each body of a corpus goes to the routes that it was made for, in turn, while another client asks for /health
as fast as it can; the slowest of its answers, less the slowest without any body, is what the body cost the
event loop. Prints a row for each body and the slowest refused one. The exit status is 1 if one was answered
with 5xx. Aim: no refused body holds the loop for more than 50 ms. Meaningful on a quiet machine only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.playground import playground

SIZE = (4 << 20) - 300
AIM_MS = 50.0
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES, OLLAMA = "/v1/responses", "/v1/messages", "/api/chat"
SAID = [{"role": "user", "content": "hi"}]


def filled(make: Callable[[int], bytes], n: int) -> bytes:
    """`make(n)`, with `n` lowered until it fits."""
    while len(raw := make(n)) > SIZE:
        n = n * SIZE // len(raw) - 1
    return raw


def chat(n: int, name: str, value: Callable[[int], Any]) -> bytes:
    return filled(lambda n: json.dumps({"messages": SAID, name: value(n)}).encode(), n)


def nest(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


def bodies() -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    """Name, paths, body."""
    every = (
        CHAT,
        RESPONSES,
        MESSAGES,
        OLLAMA,
        TEXT,
        EMBED,
        "/v1/rerank",
        "/tokenize",
        "/api/embed",
    )
    yield "one unknown key of 4 MB", every, b'{"' + b"k" * (SIZE - 9) + b'":1}'
    yield "2000 unknown keys", every, json.dumps({f"k{i}": i for i in range(2000)}).encode()
    yield (
        "300k unknown keys",
        every,
        filled(lambda n: json.dumps({f"k{i}": 1 for i in range(n)}).encode(), 300_000),
    )
    yield "one key 400k times", every, b"{" + b'"a":1,' * 400_000 + b'"a":1}'
    yield "nothing but brackets", every, b"[" * SIZE
    yield "4 MB that is not JSON", every, b'{"a":"' + b"x" * (SIZE - 10)
    yield "bad UTF-8 at the end", every, b'{"a":"' + "ä".encode() * (SIZE // 2 - 10) + b'\xff"}'
    yield "a number of 4 MB", every, b'{"a":' + b"9" * (SIZE - 10) + b"}"
    yield (
        "10k numbers of 380 digits",
        every,
        b'{"a":[' + (b"0." + b"7" * 380 + b",") * 10_000 + b"1]}",
    )
    yield (
        "60k numbers of 63 digits",
        every,
        b'{"a":[' + (b"0." + b"7" * 60 + b",") * 60_000 + b"1]}",
    )
    yield "nested 99 deep, 20k times", every, json.dumps({"a": [nest(98)] * 20_000}).encode()
    yield "1.3 M empty arrays", every, b'{"a":[' + b"[]," * (SIZE // 3 - 9) + b"[]]}"
    yield "60k objects", every, json.dumps({"a": [{"a": 1}] * 60_000}).encode()
    yield "escaped quotes", every, b'{"a":"' + b'\\"' * (SIZE // 2 - 10) + b'"}'
    yield "surrogates", every, b'{"a":"' + b"\\ud83d\\ude00" * (SIZE // 12 - 10) + b'"}'
    yield (
        "messages of 4096 numbers",
        (CHAT, MESSAGES, OLLAMA),
        json.dumps({"messages": [0] * 4096}).encode(),
    )
    yield (
        "4096 messages of a wrong role",
        (CHAT, MESSAGES, OLLAMA),
        json.dumps({"messages": [{"role": "x", "content": "y" * 900}] * 4096}).encode(),
    )
    yield "100k parts of one message", (CHAT, MESSAGES), filled(
        lambda n: json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * n}]}
        ).encode(), 100_000,
    )  # fmt: skip
    yield (
        "logit_bias of 2000",
        (CHAT, TEXT),
        chat(2000, "logit_bias", lambda n: {str(i): 999 for i in range(n)}),
    )
    yield (
        "logit_bias of 250k",
        (CHAT,),
        chat(250_000, "logit_bias", lambda n: {str(i): 9 for i in range(n)}),
    )
    yield "500k stops", (CHAT, TEXT), chat(500_000, "stop", lambda n: ["a"] * n)
    yield (
        "metadata of 2000",
        (CHAT, RESPONSES),
        chat(2000, "metadata", lambda n: {str(i): "x" * 99 for i in range(n)}),
    )
    yield (
        "input of 100k items",
        (RESPONSES,),
        filled(
            lambda n: json.dumps({"input": [{"type": "message", "role": "x"}] * n}).encode(),
            100_000,
        ),
    )
    yield (
        "128 tools of 150 properties",
        (CHAT, OLLAMA),
        chat(128, "tools", lambda n: [tool(i) for i in range(n)]),
    )
    yield (
        "an enum of 250k",
        (CHAT,),
        chat(250_000, "response_format", lambda n: form({"enum": ["a" * 9] * n})),
    )
    yield (
        "500k token ids below zero",
        (TEXT, EMBED),
        json.dumps({"prompt": [-1] * 500_000, "input": [-1] * 500_000}).encode(),
    )
    yield "500k token ids", (TEXT,), json.dumps({"prompt": [1] * 500_000}).encode()
    yield (
        "60k lists of ids and a text",
        (TEXT,),
        json.dumps({"prompt": [[1]] * 60_000 + ["a"]}).encode(),
    )
    yield "a prompt of 4 MB", (TEXT,), json.dumps({"prompt": "word " * (SIZE // 5 - 9)}).encode()
    yield (
        "a chat of 4 MB",
        (CHAT, MESSAGES, OLLAMA),
        json.dumps(
            {
                "max_tokens": 5,
                "model": "stories260k",
                "messages": [{"role": "user", "content": "word " * 200}] * 4000,
            }
        ).encode(),
    )
    url = {"url": "data:image/png;base64," + "A" * (SIZE - 200)}
    said = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    yield "base64 of 4 MB", (CHAT,), json.dumps({"messages": said}).encode()


def tool(i: int) -> dict[str, Any]:
    properties = {f"p{j}": {"type": "string", "description": "d" * 90} for j in range(150)}
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": f"t{i}", "parameters": parameters}}


def form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def probe(address: tuple[str, int], pipe: Connection) -> None:
    """Ask for /health without pause; at each word of the other side, send the slowest answer since (ms)."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    slowest_ms = 0.0
    while True:
        if pipe.poll():
            if pipe.recv() is None:
                return
            pipe.send(slowest_ms)
            slowest_ms = 0.0
        began_s = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        slowest_ms = max(slowest_ms, 1e3 * (time.monotonic() - began_s))
        time.sleep(0.001)


class Probe:
    """The client beside, in a process of its own."""

    def __init__(self, address: tuple[str, int]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=probe, args=(address, other), daemon=True)
        self._process.start()

    def slowest_ms(self) -> float:
        """Of the answers since the last call."""
        self._pipe.send(1)
        return float(self._pipe.recv())

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(10)


@contextmanager
def probing(address: tuple[str, int]) -> Iterator[Probe]:
    found = Probe(address)
    try:
        yield found
    finally:
        found.close()


def sent(address: tuple[str, int], key: str, path: str, raw: bytes) -> tuple[int, int, float]:
    """Status, bytes of the answer, milliseconds."""
    connection = http.client.HTTPConnection(*address, timeout=120)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    began_s = time.monotonic()
    try:
        connection.request("POST", path, raw, headers)
        reply = connection.getresponse()
        return reply.status, len(reply.read()), 1e3 * (time.monotonic() - began_s)
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="the least hold of so many counts")
    rounds = parser.parse_args().rounds
    table = Table(
        "body",
        "path",
        "status",
        "answer B",
        "took ms",
        "loop held ms",
        title="Holds of the event loop",
    )
    worst, n_bad = (0.0, ""), 0
    with playground() as place:
        parts = urlsplit(place.daemon.url)
        address = (parts.hostname or "", parts.port or 0)
        with probing(address) as beside:
            time.sleep(1)
            base_ms = beside.slowest_ms()
            for name, paths, raw in bodies():
                for path in paths:
                    held_ms = float("inf")
                    for _ in range(rounds):
                        time.sleep(0.05)
                        beside.slowest_ms()
                        status, n_bytes, took_ms = sent(address, place.key, path, raw)
                        time.sleep(0.02)
                        held_ms = min(held_ms, beside.slowest_ms())
                    n_bad += status >= 500 and status not in (501, 503, 507)
                    if 400 <= status < 500:
                        worst = max(worst, (held_ms, f"{name} to {path}"))
                    table.add_row(
                        name, path, str(status), str(n_bytes), f"{took_ms:.0f}", f"{held_ms:.1f}"
                    )
    console = Console(width=120)
    console.print(table)
    console.print(
        f"/health alone: {base_ms:.1f} ms; slowest refused: {worst[0]:.1f} ms, {worst[1]}; aim {AIM_MS:g} ms"
    )
    return 1 if n_bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
