"""`scripts/bench json`: answers held to a JSON schema against free ones, and what a mask costs.

Rounds alternate between the two on one daemon. Free answers have as many tokens as those with a
schema had on average, so that both do the same work; out tokens per second count forced tokens.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgeagent.catalog.model_library import Library
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL, SETTINGS, Rounds, load
from scripts.benchmarks.served import serving
from scripts.benchmarks.workloads import TICKET

MAX_TOKENS = 200


def served(args: argparse.Namespace) -> tuple[dict[int, list[dict[str, Any]]], int]:
    """Rounds by number of clients: the rate with a schema and without, and how many were valid."""
    import jsonschema

    rounds = Rounds(args.busy)
    rows: dict[int, list[dict[str, Any]]] = {}
    with serving(args.models_dir, **SETTINGS) as daemon:
        daemon.wait_until_ready()
        load(daemon.url, workload="json", max_tokens=MAX_TOKENS)  # the first one compiles
        for n in (1, 8):
            for i in range(args.rounds):
                options = {"clients": n, "requests": args.requests, "salt": 10 * i}
                held = rounds.measure(
                    functools.partial(
                        load, daemon.url, workload="json", max_tokens=MAX_TOKENS, **options
                    )
                )
                n_tokens = round(held["out_tokens"] / held["requests"])
                free = rounds.measure(
                    functools.partial(
                        load, daemon.url, workload="chat", max_tokens=n_tokens, **options
                    )
                )
                check = jsonschema.Draft202012Validator(TICKET).is_valid
                rows.setdefault(n, []).append(
                    {
                        "held": held["out_tok_s"],
                        "free": free["out_tok_s"],
                        "n_tokens": n_tokens,
                        "n": held["requests"],
                        "n_valid": sum(check(json.loads(text)) for text in held["texts"]),
                    }
                )
    return rows, rounds.n_repeated


def mask_costs(model: Path) -> dict[str, float]:
    """Microseconds (median and p95) per drawn token for the mask, and for the draw with and without
    it; milliseconds to build the tokenizer and to compile the schema; the share of forced tokens."""
    from edgeagent.engine.llama.model import Llama
    from edgeagent.engine.prompt.request_preparation import vocabulary_of
    from edgeagent.engine.structured.grammar import compile_source, source_of, tokenizer_of
    from edgeagent.types.engine_config import EngineConfig
    from edgeagent.types.generation import Form
    from edgeagent.worker.confinement import rss_bytes

    llama = Llama(EngineConfig(model_id="m", path=str(model), n_ctx=256, n_threads=1))
    before = rss_bytes()
    started = time.perf_counter()
    tokenizer = tokenizer_of(vocabulary_of(llama))
    found = {"tokenizer_ms": 1e3 * (time.perf_counter() - started)}
    note = {"note": {"type": "string", "maxLength": 40}}
    schema = TICKET | {"properties": TICKET["properties"] | note}
    form = Form(kind="json_schema", text=json.dumps(schema))
    grammar = compile_source(source_of(form), tokenizer)
    found["compile_ms"] = grammar.compile_ms
    found["memory_mb"] = (rss_bytes() - before) / 1e6
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        times, forced = timed_draws(llama, grammar, temperature)
        found[f"{name}_forced"] = forced
        for what, values in times.items():
            # Medians: a mask that meets a state for the first time takes up to a millisecond.
            found[f"{name}_{what}_us"] = 1e6 * statistics.median(values)
            found[f"{name}_{what}_p95_us"] = 1e6 * statistics.quantiles(values, n=20)[-1]
    llama.close()
    return found


def timed_draws(
    llama: Any, grammar: Any, temperature: float
) -> tuple[dict[str, list[float]], float]:
    """Seconds of each part of each draw of 60 answers on made-up logits, and the share of their tokens
    that was forced."""
    import numpy as np

    from edgeagent.engine.llama.sampler import Sampler
    from edgeagent.engine.llama.sampler_chain import Candidates
    from edgeagent.engine.structured.constraint import Constraint
    from edgeagent.types.sampling import Sampling

    candidates, rng = Candidates(llama.n_vocab), np.random.default_rng(1)
    logits = rng.normal(0, 3, llama.n_vocab).astype(np.float32)
    times: dict[str, list[float]] = {"mask": [], "held": [], "free": []}
    n_drawn = n_all = 0
    for seed in range(60):
        sampler = Sampler(Sampling(temperature=temperature, seed=seed), llama.n_vocab, [], 0)
        constraint = Constraint(grammar)
        while not constraint.is_complete:
            row = rng.permutation(logits)
            copy = row.copy()
            clock = [time.perf_counter()]
            mask = constraint.allowed()
            clock.append(time.perf_counter())
            token = sampler.pick(row, candidates, mask)
            clock.append(time.perf_counter())
            if token in llama.end_tokens:
                break
            constraint.accept(token)
            clock.append(time.perf_counter())
            sampler.pick(copy, candidates)
            clock.append(time.perf_counter())
            times["mask"].append(clock[1] - clock[0] + clock[3] - clock[2])
            times["held"].append(clock[2] - clock[1])
            times["free"].append(clock[4] - clock[3])
            n_drawn += 1
        n_all += constraint.n_tokens
        sampler.close()
    return times, 1 - n_drawn / n_all


def report(rows: dict[int, list[dict[str, Any]]], costs: dict[str, float], n_repeated: int) -> None:
    console = Console(width=120)
    today = datetime.date.today().isoformat()
    console.print(f"{machine.describe()}, {today}, {n_repeated} busy rounds repeated")
    table = Table("figure", "value", "bar", "ok", box=None)
    med = statistics.median
    for n, rounds in rows.items():
        ratios = [r["held"] / r["free"] for r in rounds]
        tokens = med(r["n_tokens"] for r in rounds)
        table.add_row(f"free tokens/s, {n} clients", f"{med(r['free'] for r in rounds):.1f}")
        table.add_row(
            f"with a schema, {n} clients, {tokens:.0f} tokens an answer",
            f"{med(r['held'] for r in rounds):.1f}",
        )
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        is_ok = med(ratios) >= 1
        value = f"{med(ratios):.2f} ({spread})"
        table.add_row("  with / without", value, ">= 1.0", "yes" if is_ok else "NO")
        n_valid, n_all = sum(r["n_valid"] for r in rounds), sum(r["n"] for r in rounds)
        is_ok = n_valid == n_all
        table.add_row("  valid", f"{n_valid} of {n_all}", "all", "yes" if is_ok else "NO")
    for name in ("greedy", "sampled"):
        table.add_row(
            f"{name}: mask and accept, a token drawn", f"{costs[f'{name}_mask_us']:.0f} us"
        )
        draws = f"{costs[f'{name}_held_us']:.0f}, free {costs[f'{name}_free_us']:.0f} us"
        table.add_row(f"{name}: draw under a mask", draws)
        table.add_row(f"{name}: tokens that were forced", f"{100 * costs[f'{name}_forced']:.0f}%")
    table.add_row("tokenizer built, once a worker", f"{costs['tokenizer_ms']:.0f} ms")
    table.add_row("schema compiled, once", f"{costs['compile_ms']:.1f} ms")
    table.add_row("memory for both and the libraries", f"{costs['memory_mb']:.1f} MB")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench json", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4, help="of each client in a round")
    parser.add_argument(
        "--busy", type=float, default=0.05, help="share of the machine others may use"
    )
    parser.add_argument("--costs-only", action="store_true", help="print the mask's costs as JSON")
    args = parser.parse_args()
    if args.costs_only:
        print(json.dumps(mask_costs(Library(args.models_dir).resolve(MODEL).path)))
        return
    rows, n_repeated = served(args)
    # In a process of its own, whose memory is that of the masks.
    command = [sys.executable, "-m", "scripts.benchmarks", "json", "--costs-only"]
    command += ["--models-dir", str(args.models_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report(rows, json.loads(done.stdout.splitlines()[-1]), n_repeated)


if __name__ == "__main__":
    main()
