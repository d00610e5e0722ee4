"""Requests on kept connections, with as little client as possible: it runs on the cores that it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx

Json = dict[str, Any]


class Line:
    """One connection to a server, for requests one after another. Used by one task."""

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Line:
        host, port = self._url.host, self._url.port
        self._reader, self._writer = await asyncio.open_connection(host, port, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(ConnectionError):  # what ended the program is told, not that its line was cut
            await self._writer.wait_closed()

    async def post(self, path: str, body: Json) -> Json:
        """The JSON that comes back. Ends the program for any status but 200."""
        payload = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._url.host}:{self._url.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._writer.write(head.encode() + payload)
        head_lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        lengths = [line for line in head_lines if line.startswith("content-length:")]
        found = await self._reader.readexactly(int(lengths[0].partition(":")[2]))
        if " 200 " not in head_lines[0]:
            raise SystemExit(f"{head_lines[0]}: {found[:600].decode('utf-8', 'replace')}")
        answer: Json = json.loads(found)
        return answer


async def exchanged(
    url: str, path: str, bodies: Sequence[Json], n_clients: int
) -> tuple[list[Json], list[float], float]:
    """All answers in the order of the questions, how long each took, and all together, in seconds."""
    answers: list[Json] = [{}] * len(bodies)
    took_s = [0.0] * len(bodies)
    waiting = iter(enumerate(bodies))

    async def client() -> None:
        async with Line(url) as line:
            for number, body in waiting:
                started = time.perf_counter()
                answers[number] = await line.post(path, body)
                took_s[number] = time.perf_counter() - started

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return answers, took_s, time.perf_counter() - started
