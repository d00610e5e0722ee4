"""Engines elsewhere that fail, that must not be asked, and that share the work.

    scripts/faults/upstreams.py [--private N] [--rounds N] [--seconds N] [--kills N] [--only PART ...]

1. faults: for each way in which an upstream can fail, `rounds` requests to a daemon with a bad upstream, a
   good one and a model of its own: what the clients got, whether the breaker opened, and closed afterwards
2. private: N requests whose policy keeps them here, and the connections that the upstream saw
3. fleet: two edgeagents behind a third, one of them slowed to half of the other's tokens per second: the
   speed of each alone, and the share that each gets of a load on both
4. kills: the same two, not slowed; one is killed under load

The exit status is 1 if a request was answered twice or lost before its first piece, a private one left, or a
share is further than 10% from the measured speeds. Loopback only; the tiny model of the tests answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.upstream_server import HOST, ScriptedServer, certified, in_thread
from tests.conftest import TALES_CHAT, DaemonProcess, serving, write_stories
from tests.engine.family_templates import FAMILIES

PARTS = ("faults", "private", "fleet", "kills")
WAYS = (
    "answer", "refusing", "silent", "429", "503", "500", "401", "307", "hang_up", "head_only", "half",
    "wrong_schema", "html", "no_http", "giant", "endless", "bomb", "expired", "wrong_ca",
)  # fmt: skip
# Ways in which the engine may have begun: the default policy lets them fail.
MAY_HAVE_BEGUN = {
    "silent", "500", "half", "wrong_schema", "html", "no_http", "giant", "endless", "bomb",
}  # fmt: skip
FAST, SLOW = 300, 150  # events a second
N_CLIENTS = 12
N_TOKENS = 16


@dataclass
class Outcome:
    """What clients got: answers by the one who gave them, and errors by status. `n_twice`: answers that were
    given twice; `n_lost`: requests without an answer that the policy should have saved."""

    by_whom: Counter[str] = field(default_factory=Counter)
    n_twice: int = 0
    n_lost: int = 0
    opened: bool = False
    closed: bool = False


def table_of(name: str, url: str, **more: Any) -> dict[str, Any]:
    given = {
        "name": name, "url": url, "models": {"big": "x"}, "keys": ["*"], "timeout_s": 0.3,
        "connect_timeout_s": 1.0, "max_answer_s": 0.6, "breaker_failures": 3, "breaker_open_s": 0.5,
    }  # fmt: skip
    return given | more


def ask(client: httpx.Client, text: str, model: str = "big", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2} | more
    return client.post("/v1/chat/completions", json=body)


# ---- 1


def faults(
    models: Path, folder: Path, n_rounds: int, ways: tuple[str, ...] = WAYS
) -> dict[str, Outcome]:
    """Each way to fail: by name `bad-WAY` (the bad upstream alone), `pair-WAY` (a good one beside it)."""
    good_tls, _ = certified(folder / "good")
    expired_tls, expired_ca = certified(folder / "expired", days=-1)
    servers = {way: ScriptedServer() for way in ways}
    for way, tls in (("expired", expired_tls), ("wrong_ca", good_tls)):
        if way in servers:
            servers[way] = ScriptedServer(tls=tls)
    good = ScriptedServer()
    found: dict[str, Outcome] = {}
    with ExitStack() as stack:
        loop = stack.enter_context(in_thread(*servers.values(), good))
        tables = []
        for way, server in servers.items():
            more = {"ca_file": str(expired_ca)} if server.url.startswith("https") else {}
            tables.append(
                table_of(way, server.url, models={f"bad-{way}": "x", f"pair-{way}": "x"}, **more)
            )
        tables.append(table_of("good", good.url, models={f"pair-{way}": "x" for way in ways}))
        rules = [
            {
                "id": way.replace("_", "-"),
                "match": {"keywords_any": [f"zz{n}"]},
                "route_to": f"bad-{way}",
            }
            for n, way in enumerate(ways)
        ]
        routing = {
            "routing.candidates": [TALES_CHAT], "routing.upstreams": tables, "routing.rules": rules,
        }  # fmt: skip
        daemon = stack.enter_context(
            serving(models, folder / "state", n_ctx=512, n_seq=4, **routing)
        )
        client = stack.enter_context(httpx.Client(base_url=daemon.url, timeout=30))
        for n, way in enumerate(ways):
            server = servers[way]
            if way == "refusing":
                asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
            elif way not in ("expired", "wrong_ca"):
                server.behaviour = way
            found[way] = _fault(client, server, good, way, n, n_rounds)
            if way in ("expired", "wrong_ca", "answer"):
                continue
            # It is well again: after the window a request is answered.
            server.behaviour = "answer"
            if way == "refusing":
                asyncio.run_coroutine_threadsafe(server.start(), loop).result()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not found[way].closed:
                found[way].closed = ask(client, "well?", f"bad-{way}").status_code == 200
                time.sleep(0.1)
    return found


def _fault(
    client: httpx.Client,
    server: ScriptedServer,
    good: ScriptedServer,
    way: str,
    n: int,
    n_rounds: int,
) -> Outcome:
    outcome = Outcome()
    server.retry_after = "0.3"
    for k in range(n_rounds):
        for model, text in (
            (f"pair-{way}", f"{way} pair {k}"),
            (f"bad-{way}", f"{way} bad {k}"),
            ("auto", f"zz{n} {way} route {k}"),
        ):
            before = len(server.bodies) + len(good.bodies)
            reply = ask(client, text, model)
            n_asked = len(server.bodies) + len(good.bodies) - before
            who = f"{reply.status_code}"
            if reply.status_code == 200:
                is_own = reply.json()["model"] == TALES_CHAT
                who = "this device" if is_own else "good" if good.n_answered.get(text) else "itself"
            outcome.by_whom[who] += 1
            n_answers = server.n_answered.get(text, 0) + good.n_answered.get(text, 0)
            outcome.n_twice += n_answers + (who == "this device") > 1
            # What cannot have begun is answered where there is somebody else.
            has_other = not model.startswith("bad-")
            outcome.n_lost += has_other and way not in MAY_HAVE_BEGUN and reply.status_code != 200
            if model.startswith("bad-") and reply.status_code == 503 and n_asked == 0:
                outcome.opened = True
    return outcome


# ---- 2


def private_requests(client: httpx.Client, n_requests: int, model: str) -> Counter[int]:
    """The statuses of requests that must not leave, in every way to say so. One in 50 is answered here."""
    statuses: Counter[int] = Counter()
    for n in range(n_requests):
        text = f"xyzzy {n}"
        match n % 50:
            case 0:
                reply = ask(client, text, "auto:local")
            case 1:
                reply = ask(client, text, "auto", metadata={"privacy": "local"}, stream=True)
            case n if n % 2:
                reply = ask(client, text, model, metadata={"privacy": "local"})
            case _:
                reply = ask(client, text, f"closed-{model}")
        statuses[reply.status_code] += 1
    return statuses


def private(models: Path, folder: Path, n_requests: int) -> tuple[Counter[int], int]:
    server = ScriptedServer()
    with in_thread(server):
        tables = [
            table_of("site", server.url),
            table_of("closed", server.url, models={"closed-big": "x"}, keys=["nobody"]),
        ]
        rules = [{"id": "hard", "match": {"keywords_any": ["xyzzy"]}, "route_to": "big"}]
        routing = {
            "routing.candidates": [TALES_CHAT, "big"], "routing.upstreams": tables, "routing.rules": rules,
        }  # fmt: skip
        with (
            serving(models, folder / "state", n_ctx=512, n_seq=4, **routing) as daemon,
            httpx.Client(base_url=daemon.url, timeout=30) as client,
        ):
            statuses = private_requests(client, n_requests, "big")
            n_connections = server.n_connections
            assert ask(client, "xyzzy", "auto").json()["model"] == "big", "it could have been sent"
        assert server.n_connections > n_connections
    return statuses, n_connections


# ---- 3


class SlowProxy:
    """Passes TCP on to a port of this machine. All answers together have at most `rate` events a second."""

    def __init__(self, port: int, rate: float) -> None:
        self.n_events = 0
        self.port = 0
        self._target, self._rate = port, rate
        self._server: asyncio.Server | None = None
        self._turn = asyncio.Lock()
        self._next_s = 0.0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(HOST, self._target)
        ways = asyncio.gather(self._pass(reader, there), self._slow(there_reader, writer))
        try:
            await ways
        except (ConnectionError, asyncio.CancelledError):
            ways.cancel()
        finally:
            there.close()
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _slow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Events wait for their turn, those of different answers one after the other."""
        while line := await reader.readline():
            if line.startswith(b"data: "):
                async with self._turn:
                    now = time.monotonic()
                    self._next_s = max(self._next_s, now - 0.05) + 1 / self._rate
                    await asyncio.sleep(self._next_s - now)
                self.n_events += 1
            writer.write(line)
            await writer.drain()
        writer.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()


@dataclass
class Load:
    """What clients got: whole answers, and how the others ended."""

    n_whole: int = 0
    n_lost: int = 0  # before the first piece
    n_broken: int = 0  # within the stream
    why: Counter[str] = field(default_factory=Counter)


async def load(url: str, model: str, until: asyncio.Event, n_clients: int = N_CLIENTS) -> Load:
    """Clients that stream one answer after the other until the event is set."""
    total = Load()

    async def client(http: httpx.AsyncClient, n: int) -> None:
        k = 0
        while not until.is_set():
            k += 1
            messages = [{"role": "user", "content": f"Tell {n} {k}"}]
            body = {"model": model, "messages": messages, "max_tokens": N_TOKENS, "stream": True,
                    "ignore_eos": True, "stream_options": {"include_usage": True}}  # fmt: skip
            n_events, error = 0, ""
            try:
                async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                    if reply.status_code != 200:
                        error = f"{reply.status_code} {(await reply.aread())[:160]!r}"
                    async for line in reply.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        event = json.loads(line[6:])
                        if "error" in event:
                            error = str(event["error"]["code"])
                            break
                        n_events += 1
            except httpx.HTTPError as exc:
                error = type(exc).__name__
            if error:
                total.why[error] += 1
            total.n_lost += bool(error) and n_events == 0
            total.n_broken += bool(error) and n_events > 0
            total.n_whole += not error

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await asyncio.gather(*(client(http, n) for n in range(n_clients)))
    return total


@contextmanager
def edgeagents(models: Path, folder: Path, n: int) -> Iterator[list[DaemonProcess]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serving(models, folder / f"engine{i}", n_ctx=8192, n_seq=16, stream_interval_ms=0)
            )
            for i in range(n)
        ]


def _port(daemon: DaemonProcess) -> int:
    return int(daemon.url.rpartition(":")[2])


async def fleet(models: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Tokens per second of each alone, the tokens of both together, and the share of the first."""
    with edgeagents(models, folder, 2) as (one, two):
        fast, slow = SlowProxy(_port(one), FAST), SlowProxy(_port(two), SLOW)
        await fast.start()
        await slow.start()
        patient = {"timeout_s": 60, "max_answer_s": 60, "max_concurrent": 64}
        tables = [
            table_of("fast", f"http://{HOST}:{fast.port}/v1",
                     models={"fast": TALES_CHAT, "both": TALES_CHAT}, **patient),
            table_of("slow", f"http://{HOST}:{slow.port}/v1",
                     models={"slow": TALES_CHAT, "both": TALES_CHAT}, **patient),
        ]  # fmt: skip
        routing = {"routing.upstreams": tables, "preload": False}
        front_state = folder / "front"
        with await asyncio.to_thread(_entered, serving(models, front_state, **routing)) as front:
            alone = [
                (await events_of(front.url, "fast", seconds, fast, slow))[0],
                (await events_of(front.url, "slow", seconds, fast, slow))[1],
            ]
            both = await events_of(front.url, "both", 2 * seconds, fast, slow)
        await fast.stop()
        await slow.stop()
    wanted, got = alone[0] / sum(alone), both[0] / (both[0] + both[1])
    return {
        "fast alone, tokens/s": alone[0],
        "slow alone, tokens/s": alone[1],
        "both, tokens/s": both[0] + both[1],
        "both over their sum": (both[0] + both[1]) / sum(alone),
        "share of the fast, by speed": wanted,
        "share of the fast, measured": got,
        "fast: measured over its speed": got / wanted,
        "slow: measured over its speed": (1 - got) / (1 - wanted),
        "lost": both[2],
    }


async def events_of(
    url: str, model: str, seconds: float, fast: SlowProxy, slow: SlowProxy
) -> tuple[float, float, int]:
    """Events per second of each proxy under load, after two seconds that fill the queues; requests lost."""
    until = asyncio.Event()
    running = asyncio.create_task(load(url, model, until))
    await asyncio.sleep(2)
    before, started = (fast.n_events, slow.n_events), time.monotonic()
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - started
    rates = (fast.n_events - before[0]) / took_s, (slow.n_events - before[1]) / took_s
    until.set()
    ended = await running
    return *rates, ended.n_lost + ended.n_broken


class _entered:  # noqa: N801
    """A context manager that another thread has entered."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._value = inner, inner.__enter__()

    def __enter__(self) -> Any:
        return self._value

    def __exit__(self, *exc: Any) -> None:
        self._inner.__exit__(*exc)


# ---- 4


async def kills(models: Path, folder: Path, n_kills: int) -> Load:
    """One of two edgeagents is killed under load, again and again."""
    total = Load()
    for k in range(n_kills):
        with edgeagents(models, folder / f"kill{k}", 2) as engines:
            tables = [
                table_of(f"e{i}", f"{one.url}/v1", models={"both": TALES_CHAT}, timeout_s=60,
                         max_answer_s=60, max_concurrent=64, breaker_open_s=30)
                for i, one in enumerate(engines)
            ]  # fmt: skip
            routing = {"routing.upstreams": tables, "preload": False}
            with serving(models, folder / f"kill{k}" / "front", **routing) as front:
                until = asyncio.Event()
                running = asyncio.create_task(load(front.url, "both", until, 24))
                await asyncio.sleep(1.0 + 0.1 * (k % 7))
                _kill_all(engines[0])
                await asyncio.sleep(3)
                until.set()
                one = await running
        total.n_whole += one.n_whole
        total.n_lost += one.n_lost
        total.n_broken += one.n_broken
        total.why += one.why
    return total


def _kill_all(daemon: DaemonProcess) -> None:
    """The daemon; its workers end with it."""
    os.kill(daemon.pid, signal.SIGKILL)


# ---- all


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--private", type=int, default=10_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=6, metavar="N")
    parser.add_argument("--seconds", type=float, default=10, metavar="N")
    parser.add_argument("--kills", type=int, default=5, metavar="N")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    console = Console(width=110)
    is_broken = False
    with tempfile.TemporaryDirectory(prefix="edgeagent-upstreams-") as scratch:
        folder = Path(scratch)
        models = folder / "models"
        models.mkdir()
        write_stories(models / f"{TALES_CHAT}.gguf", FAMILIES["qwen2.5"].template, 8192)
        if "faults" in given.only:
            found = faults(models, folder / "faults", given.rounds)
            console.print(fault_table(found))
            is_broken |= any(one.n_twice or one.n_lost for one in found.values())
            unhealed = {"answer", "expired", "wrong_ca"}
            is_broken |= any(not one.closed for way, one in found.items() if way not in unhealed)
        if "private" in given.only:
            statuses, n_connections = private(models, folder / "private", given.private)
            n_sent = sum(statuses.values())
            told = ", ".join(f"{status}: {n}" for status, n in sorted(statuses.items()))
            console.print(f"private: {n_sent} requests ({told}), {n_connections} connections")
            is_broken |= n_connections > 0 or set(statuses) != {200, 403}
        if "fleet" in given.only:
            figures = asyncio.run(fleet(models, folder / "fleet", given.seconds))
            for name, value in figures.items():
                console.print(f"fleet: {name}: {value:.3g}")
            ratios = [value for name, value in figures.items() if "over its speed" in name]
            is_broken |= any(abs(ratio - 1) > 0.1 for ratio in ratios) or figures["lost"] > 0
        if "kills" in given.only:
            total = asyncio.run(kills(models, folder / "kills", given.kills))
            console.print(
                f"kills: {given.kills} kills, {total.n_whole} whole answers, {total.n_lost} lost before "
                f"their first piece, {total.n_broken} broken within their stream {dict(total.why)}"
            )
            is_broken |= total.n_lost > 0
    return int(is_broken)


def fault_table(found: dict[str, Outcome]) -> Table:
    table = Table("upstream", "what the clients got", "twice", "lost", "avoided", "well again")
    for way, one in found.items():
        got = ", ".join(f"{who}: {n}" for who, n in one.by_whom.most_common())
        table.add_row(
            way, got, str(one.n_twice), str(one.n_lost), "yes" if one.opened else "no",
            "yes" if one.closed else "-",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
