"""`scripts/bench adapters`: LoRA adapters that change from request to request on one loaded model.

Random adapters are written and installed by `edgeagent models adapter add`. First, one context changes
among them without a daemon, and the logits of a prompt are compared with those of the first time. Then each
prompt is asked of the model and of each adapter alone, and clients ask all of it at once, in an order that
changes the adapter with each request. Compared are the probability of the likeliest token, as far as both
answers go the same way, and the texts. The model itself is asked before and after.

With quantized weights the answers of a daemon depend a little on where their cells lie and on what is
computed beside them, with and without adapters.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import AdapterFile, EngineConfig
from scripts.benchmarks import machine
from scripts.benchmarks.served import serving
from tests.data_adapters import write_adapter

# Without a common beginning: a prompt is computed as a whole, or cached as a whole.
PROMPTS = (
    "The sea is",
    "How do I boil an egg? First",
    "Three colours are",
    "A ferry sails from",
    "Yesterday it rained, and",
)
TOP = 5


class Answer(NamedTuple):
    text: str
    tokens: list[str]
    tops: list[dict[str, float]]


def ask(url: str, model: str, prompt: str, n_tokens: int) -> Answer:
    body = {
        "model": model,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": n_tokens,
        "logprobs": TOP,
    }
    reply = httpx.post(f"{url}/v1/completions", json=body, timeout=300)
    if reply.status_code != 200:
        raise SystemExit(reply.text)
    choice = reply.json()["choices"][0]
    told = choice["logprobs"]
    return Answer(choice["text"], told["tokens"], told["top_logprobs"])


def distance(a: Answer, b: Answer) -> float:
    """The largest difference of the best token's probability, up to the first token that differs."""
    largest = 0.0
    for at, (first, second) in enumerate(zip(a.tops, b.tops, strict=False)):
        if a.tokens[:at] != b.tokens[:at]:
            break
        for one, other in ((first, second), (second, first)):
            best = max(one, key=lambda token: one[token])
            lowest = min(other.values())  # of those that are told
            gap = abs(math.exp(one[best]) - math.exp(other.get(best, lowest)))
            largest = max(largest, gap)
    return largest


def prepared(args: argparse.Namespace, folder: Path, state: Path) -> tuple[Path, list[str]]:
    """A models directory with the model and its adapters."""
    models = folder / "models"
    shutil.copytree(args.models_dir / args.model, models / args.model)
    base = next((models / args.model).glob("*.gguf"))
    names = []
    for number in range(1, args.adapters + 1):
        file = folder / f"adapter-{number}.gguf"
        write_adapter(file, base, number, rank=args.rank, alpha=args.alpha)
        command = [
            sys.executable,
            "-m",
            "edgeagent",
            "models",
            "adapter",
            "add",
            args.model,
            str(file),
        ]
        where = ["--models-dir", str(models), "--state-dir", str(state)]
        subprocess.run([*command, *where], check=True, stdout=subprocess.DEVNULL)
        names.append(file.stem)
    return models, names


def swapped(
    args: argparse.Namespace, models: Path, adapters: list[str]
) -> tuple[int, float, float]:
    """One context without a daemon: how often the adapter was changed, the largest difference of a logit to
    the first time with the same adapter, and the least to the model without one. The cells are dropped
    between."""
    base = next((models / args.model).glob("*.gguf"))
    files = tuple(AdapterFile(n, str(next((models / n).glob("*.gguf")))) for n in adapters)
    config = EngineConfig(
        model_id=args.model, path=str(base), n_ctx=512, n_seq=1, n_prefixes=0, n_batch=128,
        n_threads=args.threads, reproducible=args.reproducible, adapters=files,
    )  # fmt: skip
    llama = Llama(config)
    tokens = llama.tokenize(PROMPTS[-1], add_special=True)
    first: dict[str | None, np.ndarray[Any, Any]] = {}
    largest, n_changes = 0.0, 0
    draw = random.Random(1)
    for _ in range(60):
        adapter = draw.choice([None, *adapters])
        n_changes += adapter != llama.adapters.current
        llama.adapters.use(llama.context, adapter)
        llama.clear()
        llama.batch.clear()
        llama.batch.add(0, tokens, 0, n_outputs=1)
        logits = np.array(llama.decode()[0])
        known = first.setdefault(adapter, logits)
        largest = max(largest, float(np.abs(known - logits).max()))
    least = min(float(np.abs(first[None] - first[one]).max()) for one in adapters)
    llama.close()
    return n_changes, largest, least


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as state:
        models, adapters = prepared(args, Path(folder), Path(state))
        names = [args.model, *adapters]
        own: dict[str, Any] = {}
        if adapters:
            n_changes, largest, least = swapped(args, models, adapters)
            own = {
                "one context: changes of the adapter": n_changes,
                "one context: largest difference of a logit to the same adapter": f"{largest:.4f}",
                "one context: least difference to the model": f"{least:.4f}",
            }
        if args.requests == 0:
            return own
        settings = {
            "preload": False, "n_threads": args.threads, "state_dir": state,
            "reproducible": args.reproducible, "n_prefixes": args.prefixes,
        }  # fmt: skip
        if not args.used:
            names = [args.model]
        with serving(models, **settings) as daemon:
            alone = {(m, p): ask(daemon.url, m, p, args.tokens) for m in names for p in PROMPTS}
            work = [
                (names[n % len(names)], PROMPTS[n % len(PROMPTS)]) for n in range(args.requests)
            ]
            random.Random(1).shuffle(work)
            n_swaps = sum(a[0] != b[0] for a, b in itertools.pairwise(work))
            started = time.perf_counter()
            with ThreadPoolExecutor(args.clients) as threads:
                got = list(
                    threads.map(lambda one: ask(daemon.url, one[0], one[1], args.tokens), work)
                )
            took_s = time.perf_counter() - started
            with ThreadPoolExecutor(args.clients) as threads:
                started = time.perf_counter()
                same = list(threads.map(
                    lambda one: ask(daemon.url, args.model, one[1], args.tokens), work
                ))  # fmt: skip
            base_s = time.perf_counter() - started
            after = [ask(daemon.url, args.model, p, args.tokens) for p in PROMPTS]
        between = [
            distance(alone[a, p], alone[b, p])
            for p in PROMPTS
            for a in names
            for b in names
            if a < b
        ]
        found = [distance(alone[one], answer) for one, answer in zip(work, got, strict=True)]
        base = [distance(alone[args.model, p], one) for p, one in zip(PROMPTS, after, strict=True)]
        texts = sum(alone[one].text == answer.text for one, answer in zip(work, got, strict=True))
        if not between:
            between = [math.nan]
        return own | {
            "requests, clients": f"{len(work)}, {args.clients}",
            "changes of the adapter from a request to the next": n_swaps,
            "difference between two adapters alone, least": f"{min(between):.4f}",
            "difference to the same adapter alone, largest": f"{max(found):.4f}",
            "texts equal to those alone": f"{texts} of {len(work)}",
            "the model itself, before and after": f"{max(base):.4f}",
            "tokens/s with all adapters": f"{sum(len(a.tokens) for a in got) / took_s:.1f}",
            "tokens/s with the model alone": f"{sum(len(a.tokens) for a in same) / base_s:.1f}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench adapters", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--adapters", type=int, default=3, help="0: the same with the model alone")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=4.0)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--reproducible", action=argparse.BooleanOptionalAction, default=True,
        help="values in bf16, so that a text does not depend on what is computed beside it",
    )  # fmt: skip
    parser.add_argument("--prefixes", type=int, default=24,
                        help="0: nothing is computed from cells that another request left")  # fmt: skip
    parser.add_argument("--used", action=argparse.BooleanOptionalAction, default=True,
                        help="--no-used: the same load, all of it on the model alone")  # fmt: skip
    args = parser.parse_args()
    table = Table("figure", machine.describe())
    for name, value in measure(args).items():
        table.add_row(name, str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
