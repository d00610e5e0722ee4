"""Thousands of random JSON schemas, each with answers whose tokens run out. Prints one table.

    scripts/faults/closing.py [--schemas 3000] [--first SEED] [MODEL.gguf]

Each schema is asked for at eight limits of tokens. Without a model the answers are random bytes that the
grammar allows, in this process; with one they are a real worker's, at temperature 1. An answer must
validate, by `jsonschema`, or its schema must have been refused.

The exit status is 1 if an answer does not validate, is an error, or if the worker died.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.engine.batching.time_slices import Sliced, TimeSlice
from edgeagent.engine.client import EngineClient
from edgeagent.engine.structured.byte_grammar import LAST_TRY
from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.grammar import compile_source, source_of
from edgeagent.engine.structured.grammar_compiler import try_out
from edgeagent.engine.structured.json_completion import JsonCompletion
from edgeagent.errors import BadRequest, EdgeAgentError
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.engine.schema_maker import schema_of

LIMITS = (1, 3, 8, 16, 32, 64, 128, 256)
CLIENTS = 8
BAD = ("not valid", "cut", "errors", "worker deaths")


def grammar_of(schema: Any) -> Grammar:
    """Over single bytes. Raises: BadRequest."""
    from llguidance import LLTokenizer

    source = source_of(Form(kind="json_schema", text=json.dumps(schema), is_strict=True))
    if not source.is_plain:
        try_out(source, 2.0)
    return compile_source(source, LLTokenizer("byte", slices=[]))


def babble(grammar: Grammar, max_new: int, seed: int, took_s: list[float]) -> tuple[bytes, str]:
    """A text of random bytes that a grammar allows, closed when its tokens run out, and how it ended.
    `took_s` gets how long each step of the engine would have been held."""
    constraint, random = Constraint(grammar), np.random.default_rng(seed)
    ending = JsonCompletion(max_new, grammar.growth)
    tokens = list(constraint.opening)
    while not constraint.is_complete:
        if len(tokens) >= max_new:
            closing = in_slices(constraint.way_out(None, LAST_TRY), took_s)
            return bytes(tokens + (closing or [])), "cut" if closing is None else "beyond"
        token = _drawn(constraint.allowed(), random)
        if token is None:
            break
        closing = in_slices(ending.instead(constraint, token, max_new - len(tokens)), took_s)
        if closing is not None:
            end = "within" if len(tokens) + len(closing) <= max_new else "beyond"
            return bytes(tokens + closing), end
        tokens += [token, *constraint.accept(token)]
    return bytes(tokens), "by itself"


def in_slices(work: Sliced[list[int] | None], took_s: list[float]) -> list[int] | None:
    # Of processor time: on a machine that is busy otherwise the clock says little.
    slice_ = TimeSlice(clock=time.thread_time)
    result: list[list[int] | None] = []

    def whole() -> Sliced[bool]:
        result.append((yield from work))
        return True

    going = whole()
    while True:
        started = time.thread_time()
        slice_.begin()
        is_done = slice_.go_on(going)
        took_s.append(time.thread_time() - started)
        if is_done:
            return result[0]


def _drawn(mask: bytes, random: np.random.Generator) -> int | None:
    """One of the tokens of a mask, more often a plain letter; None for the end."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    allowed = np.flatnonzero(bits)
    plain = allowed[(allowed >= 0x20) & (allowed < 0x7F)]
    token = int(random.choice(plain if len(plain) and random.random() < 0.8 else allowed))
    return token if token < 256 else None


def bytes_run(seeds: range) -> tuple[Counter[str], list[str], list[float]]:
    counts: Counter[str] = Counter()
    notes: list[str] = []
    took_s: list[float] = []
    for seed in seeds:
        schema = schema_of(seed)
        counts["schemas"] += 1
        try:
            grammar = grammar_of(schema)
        except BadRequest as exc:
            counts["refused"] += 1
            counts[f"refused: {exc.code}"] += 1
            continue
        for limit in LIMITS:
            text, end = babble(grammar, limit, seed + limit, took_s)
            counts["answers"] += 1
            counts[end] += 1
            if (why := fault(text, schema)) is not None:
                counts["not valid"] += end != "cut"
                notes.append(f"{end} at {limit}, seed {seed}: {text!r}: {why}"[:400])
    return counts, notes, took_s


def fault(text: bytes | str, schema: Any) -> str | None:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError) as exc:
        return str(exc).splitlines()[0]
    return None


async def model_run(model: Path, seeds: range) -> tuple[Counter[str], list[str], list[float]]:
    counts: Counter[str] = Counter()
    notes: list[str] = []
    deaths: list[int | None] = []
    config = EngineConfig(
        model_id=model.stem, path=str(model), n_ctx=4096, n_seq=CLIENTS, n_threads=1
    )
    engine = await EngineClient.start(
        config, timeout_s=120, on_death=lambda client, status: deaths.append(status),
        log_level="warning",
    )  # fmt: skip
    work: Iterator[int] = iter(seeds)

    async def client() -> None:
        for seed in work:
            await _asked(engine, seed, counts, notes)

    try:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    finally:
        counts["worker deaths"] = len(deaths)
        await engine.close()
    return counts, notes, []


async def _asked(engine: EngineClient, seed: int, counts: Counter[str], notes: list[str]) -> None:
    schema = schema_of(seed)
    counts["schemas"] += 1
    form = Form(kind="json_schema", text=json.dumps(schema), is_strict=True)
    for limit in LIMITS:
        spec = GenerateSpec(
            prompts=[Prompt(text="An example as JSON:\n")], max_tokens=limit, form=form,
            sampling=Sampling(temperature=1, seed=seed),
        )  # fmt: skip
        text, finish = "", ""
        try:
            async for chunk in engine.generate(spec):
                if chunk.error is not None:
                    raise EdgeAgentError(f"{chunk.error[0]}: {chunk.error[1]}")
                text, finish = text + chunk.text, chunk.finish or finish
                if chunk.usage is not None:
                    counts["beyond"] += chunk.usage.n_generated > limit
        except BadRequest:
            counts["refused"] += 1
            return
        except EdgeAgentError as exc:
            counts["errors"] += 1
            notes.append(f"error at {limit}, seed {seed}: {exc.message}"[:400])
            continue
        counts["answers"] += 1
        counts[finish] += 1
        if (why := fault(text, schema)) is not None:
            counts["not valid"] += 1
            notes.append(f"{finish} at {limit}, seed {seed}: {text!r}: {why}"[:400])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--schemas", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.schemas)
    started = time.monotonic()
    if options.model is None:
        counts, notes, took_s = bytes_run(seeds)
    else:
        counts, notes, took_s = asyncio.run(model_run(options.model, seeds))
    for what, n in counts.items():
        print(f"{what:32} {n}")
    if took_s:
        p50, p99 = np.percentile(took_s, [50, 99])
        slowest = max(took_s)
        print(f"one step held, ms: p50 {1e3 * p50:.2f}, p99 {1e3 * p99:.2f}, most {1e3 * slowest:.1f}; "
              f"{1e3 * sum(took_s) / max(1, counts['answers']):.0f} an answer")  # fmt: skip
    print(f"{time.monotonic() - started:.0f} s")
    for note in notes[:20]:
        print(note.encode("unicode_escape").decode())
    sys.exit(any(counts[what] for what in BAD))


if __name__ == "__main__":
    main()
