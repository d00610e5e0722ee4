"""`scripts/bench responses`: a dialogue that goes on after a restart, against computing it anew.

Each round tells a model something of --words words in two turns of `POST /v1/responses`, restarts the daemon
and measures how long a third turn, behind `previous_response_id`, takes to its first piece of text. The same
conversation, sent whole to a daemon that has never seen it, is the cold prefill. Which comes first
alternates from round to round. A round that another process disturbed is repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks.engine import MODEL, SETTINGS
from scripts.benchmarks.restarts import KEEPING_TIMEOUT_S, Wording, compare
from scripts.benchmarks.served import Served, serving
from scripts.benchmarks.workloads import prose


def ask(served: Served, **body: Any) -> dict[str, Any]:
    """A response, streamed: the last event's, with the seconds to its first text."""
    asked = {"model": MODEL, "temperature": 0, "max_output_tokens": 24, "stream": True} | body
    first_s, response = None, {}
    sent = time.perf_counter()
    with httpx.stream("POST", f"{served.url}/v1/responses", json=asked, timeout=300) as reply:
        for line in reply.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "response.output_text.delta" and first_s is None:
                first_s = time.perf_counter() - sent
            response = event.get("response", response)
    if first_s is None or response["status"] not in ("completed", "incomplete"):
        raise SystemExit(f"no text came: {response}")
    usage = response["usage"]
    return {
        "id": response["id"],
        "items": response["output"],
        "ttft_s": first_s,
        "n_prompt": usage["input_tokens"],
        "n_cached": usage["input_tokens_details"]["cached_tokens"],
    }


def wait_until_kept(served: Served, n: int) -> None:
    """Until what was computed of n answers is on the disk."""
    deadline = time.monotonic() + KEEPING_TIMEOUT_S
    while served.log.read_text().count("prefix_kept") < n:
        if time.monotonic() > deadline:
            raise SystemExit("nothing was kept of the dialogue: see prefix_store_bytes")
        time.sleep(0.02)


def one_round(args: argparse.Namespace, number: int) -> dict[str, Any]:
    """The third turn after a restart, and the same text cold."""
    texts = [
        f"Here are my notes: {prose(args.words, 7 * number)}. Keep them in mind.",
        # Long enough to be worth a write of its own.
        f"And some more: {prose(60, 7 * number + 1)}. Which of these words would you call beautiful?",
        "And which of them is the shortest?",
    ]
    turns = [{"role": "user", "content": text} for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        own = SETTINGS | {
            "state_dir": str(Path(folder, "state")),
            "store_key_file": str(Path(folder, "key")),
        }
        with serving(args.models_dir, **own) as served:
            served.wait_until_ready()
            first = ask(served, input=[turns[0]])
            wait_until_kept(served, 1)
            second = ask(served, input=[turns[1]], previous_response_id=first["id"])
            wait_until_kept(served, 2)
        whole = [turns[0], *first["items"], turns[1], *second["items"], turns[2]]

        def kept() -> dict[str, Any]:
            with serving(args.models_dir, **own) as served:
                served.wait_until_ready()
                return ask(served, input=[turns[2]], previous_response_id=second["id"])

        def cold() -> dict[str, Any]:
            with serving(args.models_dir, **SETTINGS) as served:
                served.wait_until_ready()
                return ask(served, input=whole, store=False)

        order = [kept, cold] if number % 2 else [cold, kept]
        found = {run.__name__: run() for run in order}
    if found["kept"]["n_prompt"] != found["cold"]["n_prompt"] or found["cold"]["n_cached"]:
        raise SystemExit(f"the two did not read the same text: {found}")
    return found


WORDING = Wording(
    words="of the first turn",
    what="first text of turn three",
    kept="recalled after a restart",
    bar=0.35,
)


def main() -> None:
    compare("responses", __doc__, one_round, WORDING)


if __name__ == "__main__":
    main()
