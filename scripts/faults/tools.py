"""Hundreds of tool calls by a real model through a running daemon. Prints one table.

    scripts/faults/tools.py --bfcl DIR [--models-dir DIR] [--model ID] [--calls N] [--max-tokens N]
                            [--threads N] [--seconds N]

Questions of the Berkeley Function Calling Leaderboard (simple, multiple and parallel in turn) with their
tools and `tool_choice` required, asked with the official client, every other one streamed. Each call must be
of a tool that was offered, its arguments must be JSON and validate by `jsonschema` against the tool's
own schema. Whether the functions and the arguments are the right ones is the model's business, and is
counted too.

The exit status is 1 if a call does not parse or validate, if an answer has none, if it was an error, or if
the worker died. An answer that was cut off by --max-tokens is counted by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import CACHE, SMOLLM, DaemonProcess, serving
from tests.engine.bfcl import Case, cases, has_right_functions, is_right

COUNTS = (
    "questions", "answers with calls", "calls", "calls that parse and validate", "cut off by length",
    "without a call", "calls that do not validate", "errors", "right functions", "right arguments too",
    "worker deaths",
)  # fmt: skip
BAD = ("without a call", "calls that do not validate", "errors", "worker deaths")


class Run:
    """The questions against one model; `counts` is its column of the table."""

    def __init__(self, daemon: DaemonProcess, model: str, max_tokens: int) -> None:
        self._client = daemon.client(timeout=600)
        self._model = model
        self._max_tokens = max_tokens
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def ask(self, number: int, case: Case) -> None:
        self.counts["questions"] += 1
        try:
            choice = self._choice(case, is_stream=number % 2 == 1)
        except openai.APIError as exc:
            self._note("errors", f"{case.id}: {exc}")
            return
        calls = choice.message.tool_calls or []
        if choice.finish_reason == "length":
            self.counts["cut off by length"] += 1
            calls = calls[:-1]  # the last one is not whole
        elif not calls or choice.finish_reason != "tool_calls":
            self._note("without a call", f"{case.id}: {choice}")
        self.counts["answers with calls"] += bool(calls)
        read = [found for call in calls if (found := self._read(case, call)) is not None]
        if choice.finish_reason == "tool_calls":
            self.counts["right functions"] += has_right_functions(case, read)
            self.counts["right arguments too"] += is_right(case, read)

    def _choice(self, case: Case, *, is_stream: bool) -> Any:
        options: dict[str, Any] = {
            "model": self._model, "messages": case.messages, "tools": case.tools, "tool_choice": "required",
            "max_tokens": self._max_tokens, "temperature": 0,
        }  # fmt: skip
        if not is_stream:
            return self._client.chat.completions.create(**options).choices[0]
        deltas = [
            chunk.choices[0]
            for chunk in self._client.chat.completions.create(stream=True, **options)
            if chunk.choices
        ]
        return added_up(deltas)

    def _read(self, case: Case, call: Any) -> tuple[str, dict[str, Any]] | None:
        self.counts["calls"] += 1
        name, text = call.function.name, call.function.arguments
        try:
            arguments = json.loads(text)
            jsonschema.validate(arguments, case.schema(name))
        except (ValueError, jsonschema.ValidationError) as exc:
            self._note("calls that do not validate", f"{case.id}: {name} {text!r} {exc}")
            return None
        self.counts["calls that parse and validate"] += 1
        return name, arguments

    def _note(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.notes.append(f"{what}: {text}".encode("unicode_escape").decode()[:400])


def added_up(choices: list[Any]) -> Any:
    """Streamed choices as the SDK's own helper adds them up. That helper raises where an answer was cut
    off, which is counted here."""
    from openai.types.chat import ChatCompletionMessageFunctionToolCall
    from openai.types.chat.chat_completion import Choice
    from openai.types.chat.chat_completion_message import ChatCompletionMessage

    calls: dict[int, dict[str, Any]] = {}
    for delta in (piece for choice in choices for piece in choice.delta.tool_calls or ()):
        if delta.id is not None:
            function = {"name": delta.function.name, "arguments": ""}
            calls[delta.index] = {"id": delta.id, "type": delta.type, "function": function}
        calls[delta.index]["function"]["arguments"] += delta.function.arguments
    return Choice(
        finish_reason=choices[-1].finish_reason,
        index=0,
        message=ChatCompletionMessage(
            role="assistant",
            tool_calls=[
                ChatCompletionMessageFunctionToolCall.model_validate(calls[i])
                for i in sorted(calls)
            ],
        ),
    )


def campaign(
    daemon: DaemonProcess,
    model: str,
    asked: list[Case],
    max_tokens: int,
    n_clients: int = 4,
    until_s: float | None = None,
) -> Run:
    """Ask all of them, a few at a time; none any more after `until_s` of the monotonic clock."""
    run = Run(daemon, model, max_tokens)
    before = {worker.pid for worker in daemon.workers()}

    def ask(number: int, case: Case) -> None:
        if until_s is None or time.monotonic() < until_s:
            run.ask(number, case)

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(ask, range(len(asked)), asked))
    after = {worker.pid for worker in daemon.workers()}
    run.counts["worker deaths"] = len(before - after)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bfcl", type=Path, required=True, metavar="DIR", help="folder with BFCL_v4_*.json"
    )
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=SMOLLM)
    parser.add_argument("--calls", type=int, default=400, metavar="N", help="how many questions")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1, help="that the engine may use")
    parser.add_argument("--seconds", type=float, default=0, help="ask no more after that; 0: all")
    parser.add_argument("--notes", action="store_true", help="print each failure")
    options = parser.parse_args()
    asked = cases(options.bfcl, options.calls)
    started_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as state,
        serving(
            options.models_dir, Path(state), queue_timeout_s=600, n_threads=options.threads
        ) as daemon,
    ):
        until_s = started_s + options.seconds if options.seconds else None
        run = campaign(daemon, options.model, asked, options.max_tokens, until_s=until_s)
    print(f"{time.monotonic() - started_s:.0f} s", file=sys.stderr)
    table = Table("", box=None, pad_edge=False)
    table.add_column(options.model, justify="right")
    for what in COUNTS:
        table.add_row(what, str(run.counts[what]))
    Console().print(table)
    for note in run.notes if options.notes else run.notes[:20]:
        print(note)
    sys.exit(any(run.counts[what] for what in BAD))


if __name__ == "__main__":
    main()
