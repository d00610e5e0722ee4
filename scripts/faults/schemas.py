"""Hundreds of JSON schemas, good and bad, through a real worker. Prints one table.

    scripts/faults/schemas.py MODEL.gguf ... [--bfcl DIR] [--max-tokens N] [--every N]

    good      every schema of the corpus and every function of the Berkeley Function Calling
              Leaderboard's files, at temperature 0 and 1; each answer is validated by `jsonschema`, which
              shares no code with what held it to the schema, also one whose tokens ran out: it is closed
              where --max-tokens leave the room
    bad       every bad schema of the corpus; each must be refused with a 400's code

The exit status is 1 if an answer that finished with stop does not validate, if an answer was an
error, if a good schema was refused, if a bad one was not, or if the worker died.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.engine.client import EngineClient
from edgeagent.errors import BadRequest, EdgeAgentError
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.engine.schema_corpus import bad, bfcl, good

CLIENTS = 8
COUNTS = (
    "good schemas", "answers", "stop, valid", "stop, not valid", "length, valid", "length, not valid",
    "errors", "good refused",
    "bad schemas", "bad refused", "bad answered", "slowest refusal, ms", "worker deaths",
)  # fmt: skip
BAD = ("stop, not valid", "errors", "good refused", "bad answered", "worker deaths")


class Run:
    """The schemas against one model; `counts` is its column of the table."""

    def __init__(self, engine: EngineClient, max_tokens: int) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    async def good(self, schemas: dict[str, Any]) -> None:
        self.counts["good schemas"] = len(schemas)
        work = iter([(n, s, t) for n, s in schemas.items() for t in (0.0, 1.0)])

        async def client() -> None:
            for name, schema, temperature in work:
                await self._hold(name, schema, temperature)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def bad(self, schemas: dict[str, Any]) -> None:
        self.counts["bad schemas"] = len(schemas)
        for name, schema in schemas.items():
            started = time.perf_counter()
            try:
                finish, text = await self._answer(schema, 0)
            except BadRequest:
                self.counts["bad refused"] += 1
                took_ms = round(1e3 * (time.perf_counter() - started))
                self.counts["slowest refusal, ms"] = max(
                    took_ms, self.counts["slowest refusal, ms"]
                )
            except EdgeAgentError as exc:
                self._note("errors", f"{name}: {exc.code} {exc.message}")
            else:
                self._note("bad answered", f"{name}: {finish} {text}")

    async def _hold(self, name: str, schema: dict[str, Any], temperature: float) -> None:
        try:
            finish, text = await self._answer(schema, temperature)
        except BadRequest as exc:
            self._note("good refused", f"{name}: {exc.message}")
            return
        except EdgeAgentError as exc:
            self._note("errors", f"{name} at {temperature}: {exc.code} {exc.message}")
            return
        self.counts["answers"] += 1
        try:
            jsonschema.validate(json.loads(text), schema)
        except (ValueError, jsonschema.ValidationError) as exc:
            self._note(f"{finish}, not valid", f"{name} at {temperature}: {text!r} {exc}")
        else:
            self.counts[f"{finish}, valid"] += 1

    async def _answer(self, schema: dict[str, Any], temperature: float) -> tuple[str, str]:
        generation = self._engine.generate(
            GenerateSpec(
                prompts=[Prompt(text="Fill in the form with short values:\n")],
                max_tokens=self._max_tokens,
                sampling=Sampling(temperature=temperature, seed=1),
                form=Form(kind="json_schema", text=json.dumps(schema), is_strict=True),
            )
        )
        text, finish = "", ""
        async for chunk in generation:
            if chunk.error is not None:
                raise EdgeAgentError(f"{chunk.error[0]}: {chunk.error[1]}")
            text += chunk.text
            finish = chunk.finish or finish
        return finish, text

    def _note(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.notes.append(f"{what}: {text}".encode("unicode_escape").decode()[:400])


async def campaign(model: Path, options: argparse.Namespace) -> Run:
    deaths: list[int | None] = []
    # One thread: two wait for each other at every step, which beside another process takes ten times
    # as long.
    config = EngineConfig(
        model_id=model.stem, path=str(model), n_ctx=4096, n_seq=CLIENTS, n_threads=1
    )
    engine = await EngineClient.start(
        config,
        timeout_s=120,
        on_death=lambda client, status: deaths.append(status),
        log_level="warning",
    )
    run = Run(engine, options.max_tokens)
    schemas = good()
    if options.bfcl is not None:
        schemas |= bfcl(options.bfcl)
    try:
        await run.good(dict(list(schemas.items())[:: options.every]))
        await run.bad(dict(list(bad().items())[:: options.every]))
    finally:
        run.counts["worker deaths"] = len(deaths)
        await engine.close()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--bfcl", type=Path, metavar="DIR", help="folder with BFCL_v4_*.json")
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth schema only")
    parser.add_argument("--notes", action="store_true", help="print each failure")
    options = parser.parse_args()
    table = Table("", box=None, pad_edge=False)
    runs = []
    for model in options.models:
        started_s = time.monotonic()
        runs.append(asyncio.run(campaign(model, options)))
        print(f"{model.name}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)
        table.add_column(model.name, justify="right")
    for what in COUNTS:
        table.add_row(what, *(str(run.counts[what]) for run in runs))
    Console().print(table)
    for run in runs:
        for note in run.notes if options.notes else run.notes[:20]:
            print(note)
    sys.exit(any(run.counts[what] for run in runs for what in BAD))


if __name__ == "__main__":
    main()
