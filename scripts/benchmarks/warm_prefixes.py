"""`scripts/bench warm-prefixes`: the first chat after a restart, with its system prompt on disk and without.

Each round lets a daemon answer three chats with a system prompt of --words words, none of them stored, and
waits until what was computed of the prompt is on disk. Then it restarts the daemon and measures how long a
chat with another question takes to its first piece of text; the same with a daemon that keeps nothing.
Which comes first alternates. A round that another process disturbed is repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks.engine import MODEL, SETTINGS
from scripts.benchmarks.restarts import KEEPING_TIMEOUT_S, Wording, compare
from scripts.benchmarks.served import Served, serving
from scripts.benchmarks.workloads import prose

QUESTIONS = ("Which word is the longest?", "Is there a colour in it?", "How does it begin?")
KEEPING = {"store.prefixes.min_age_s": 0}


def ask(served: Served, system: str, question: str) -> dict[str, Any]:
    """A chat, streamed: seconds to its first text, and counts of its prompt."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {
        "model": MODEL, "messages": turns, "temperature": 0, "max_tokens": 16, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    first_s, usage = None, {}
    sent = time.perf_counter()
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=300) as reply:
        for line in reply.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if first_s is None and any(c["delta"].get("content") for c in chunk["choices"]):
                first_s = time.perf_counter() - sent
            usage = chunk.get("usage") or usage
    if first_s is None or not usage:
        raise SystemExit("no text came")
    n_cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {"ttft_s": first_s, "n_prompt": usage["prompt_tokens"], "n_cached": n_cached}


def wait_until_kept(served: Served) -> int:
    """Bytes of the file."""
    deadline = time.monotonic() + KEEPING_TIMEOUT_S
    while not (found := re.search(r"warm_prefix_kept .*n_bytes=(\d+)", served.log.read_text())):
        if time.monotonic() > deadline:
            raise SystemExit("nothing was kept of the prompt: see [store.prefixes]")
        time.sleep(0.02)
    return int(found[1])


def one_round(args: argparse.Namespace, number: int) -> dict[str, Any]:
    system = f"Answer questions about this list of words: {prose(args.words, 11 * number)}."
    with tempfile.TemporaryDirectory() as folder:
        own = SETTINGS | {
            "state_dir": str(Path(folder, "state")),
            "store_key_file": str(Path(folder, "key")),
        }
        with serving(args.models_dir, **own, **KEEPING) as served:
            served.wait_until_ready()
            for question in QUESTIONS:
                ask(served, system, question)
            n_bytes = wait_until_kept(served)

        def kept() -> dict[str, Any]:
            with serving(args.models_dir, **own, **KEEPING) as served:
                served.wait_until_ready()
                return ask(served, system, "And how does it end?")

        def cold() -> dict[str, Any]:
            with serving(args.models_dir, **SETTINGS) as served:
                served.wait_until_ready()
                return ask(served, system, "And how does it end?")

        order = [kept, cold] if number % 2 else [cold, kept]
        found = {run.__name__: run() for run in order}
    if found["cold"]["n_cached"] or not found["kept"]["n_cached"]:
        raise SystemExit(f"the prompt was read by the wrong one: {found}")
    return found | {"n_bytes": n_bytes}


WORDING = Wording(
    words="of the system prompt",
    what="first text after a restart, system prompt",
    kept="read from disk",
    bar=0.2,
)


def main() -> None:
    compare("warm-prefixes", __doc__, one_round, WORDING)


if __name__ == "__main__":
    main()
