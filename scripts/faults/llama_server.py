"""A real llama-server as an upstream: what passes through faithfully, and what happens when it fails.

    scripts/faults/llama_server.py BINARY MODEL.gguf [--template FILE] [--kills N]

BINARY is llama.cpp's `llama-server`, MODEL.gguf a chat model for it, FILE a chat template in place of the
model's own: tools need one that has them. Each check prints one line:

1. answers: chats, streams, log-probabilities, `stop`, tools, JSON schemas, several answers, texts to
   continue, Ollama's and Anthropic's dialects; tokens are compared with those that llama-server counts
2. refusals: a prompt that is too long, a schema that it cannot follow, a wrong API key
3. faults: clients that leave, N kill -9 in mid-stream, a refused port, the restart, requests while it loads

The exit status is 1 if a check failed. Loopback only. Texts are never compared: those of a small model vary.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.faults.llama_answers import check_answers, check_refusals
from scripts.faults.llama_pair import CHAT, N_SLOTS, Checks, Json, Pair, events, question, started
from tests.conftest import wait_for


def check_faults(pair: Pair, checks: Checks, n_kills: int) -> None:
    server = pair.server

    def long_stream() -> Json:
        return {"model": "big"} | question(
            CHAT, {"stream": True, "max_tokens": 1500, "ignore_eos": True}
        )

    def leaving() -> str:
        took_s = []
        for _ in range(3):
            with pair.through.stream("POST", CHAT, json=long_stream()) as reply:
                next(one for one in events(reply) if one["choices"][0]["delta"].get("content"))
                assert server.n_busy(pair.direct) == 1
            left_s = time.monotonic()
            wait_for(lambda: server.n_busy(pair.direct) == 0, 10)
            took_s.append(time.monotonic() - left_s)
        return f"its slot is free after {1e3 * max(took_s):.0f} ms at most"

    def kills() -> str:
        back_s = []
        for _ in range(n_kills):
            with pair.through.stream("POST", CHAT, json=long_stream()) as reply:
                found = events(reply)
                next(one for one in found if one["choices"][0]["delta"].get("content"))
                server.kill()
                last = list(found)[-1]
            assert "error" in last, last
            refused = pair.ask()
            assert refused.status_code == 503, f"{refused.status_code} {refused.text}"
            assert "retry-after" in refused.headers
            server.start()
            started_s = time.monotonic()
            wait_for(server.is_ready)
            wait_for(lambda: pair.ask(max_tokens=1).status_code == 200, 10)
            back_s.append(time.monotonic() - started_s)
        told = f"{n_kills} kills: each stream ended with an error event"
        return f"{told}; answers {max(back_s):.1f} s after the start"

    def fallback() -> str:
        server.kill()
        reply = pair.ask(model="either")
        assert reply.status_code == 200, f"{reply.status_code} {reply.text}"
        assert reply.json()["model"] == "small", reply.json()["model"]
        return "the route's other model answers"

    def loading() -> str:
        """Requests from the start of the process on: each gets an answer or a 503 that says when."""
        statuses: list[int] = []
        server.start()
        until_s = time.monotonic() + 60
        while 200 not in statuses and time.monotonic() < until_s:
            reply = pair.ask(max_tokens=1)
            statuses.append(reply.status_code)
            assert reply.status_code in (200, 503), f"{reply.status_code} {reply.text}"
            if reply.status_code == 503:
                assert "retry-after" in reply.headers
            time.sleep(0.02)
        assert statuses[-1] == 200, statuses
        return f"{len(statuses) - 1} refused with 503 and Retry-After, then answered"

    def hanging() -> str:
        server.signal(signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            reply = pair.ask(model="hasty")
            took_s = time.monotonic() - began_s
            assert reply.status_code in (503, 504), f"{reply.status_code} {reply.text}"
        finally:
            server.signal(signal.SIGCONT)
        wait_for(lambda: pair.ask(model="hasty", max_tokens=1).status_code == 200, 20)
        return f"{reply.status_code} after {took_s:.1f} s without a byte; answers again when it runs on"

    def crowd() -> str:
        with ThreadPoolExecutor(12) as threads:
            replies = list(threads.map(lambda n: pair.ask(max_tokens=8), range(24)))
        statuses = [one.status_code for one in replies]
        assert statuses == [200] * 24, statuses
        return f"24 requests of 12 clients on {N_SLOTS} slots"

    for name, check in (
        ("clients that leave", leaving), ("many at once", crowd), ("kill -9 in mid-stream", kills),
        ("refused, with another model", fallback), ("while it loads", loading),
        ("it hangs (SIGSTOP)", hanging),
    ):  # fmt: skip
        checks.run(name, check)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("binary", type=Path, help="llama-server")
    parser.add_argument("model", type=Path, help="a chat model for it, as GGUF")
    parser.add_argument(
        "--template", type=Path, metavar="FILE", help="chat template for llama-server"
    )
    parser.add_argument("--kills", type=int, default=5, metavar="N")
    given = parser.parse_args()
    for path in filter(None, (given.binary, given.model, given.template)):
        if not path.is_file():
            parser.error(
                f"{path} does not exist: name llama-server, a model for it, and its template if any"
            )
    if not os.access(given.binary, os.X_OK):
        parser.error(f"{given.binary} is not executable: name the program llama-server")
    checks = Checks()
    with (
        tempfile.TemporaryDirectory(prefix="edgeagent-llama-server-") as scratch,
        started(given.binary, given.model, Path(scratch), given.template) as pair,
    ):
        check_answers(pair, checks)
        check_refusals(pair, checks)
        check_faults(pair, checks, given.kills)
    Console(width=150).print(checks.table())
    return int(not checks.are_right)


if __name__ == "__main__":
    sys.exit(main())
