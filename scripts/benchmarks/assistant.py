"""One assistant request through the API: how many a second, how long, and how often right.

    scripts/bench assistant                      edge-assistant-s beside SmolLM2-135M, the same questions
    scripts/bench assistant --evaluate val       figures on the validation splits, as clients get them
    scripts/bench assistant --evaluate items.jsonl     the same on items of your own, one JSON a line:
                                                 {"text", "domain", "intent", "slots": {name: value}}

SmolLM2 has no tool for each of 150 intents in its context of habit, nor does the API take more than 128: it
is told their names in a system prompt, which is cached, and held to them by a JSON schema. That is the
easiest form there is for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeagent.catalog.assistant_intents import Assistant, read_assistant
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import OUT_OF_SCOPE, load
from scripts.benchmarks.exchange import Json, exchanged
from scripts.benchmarks.machine import describe
from scripts.benchmarks.served import serving

CHAT = "/v1/chat/completions"
DOMAIN = "assistant"


@dataclass(frozen=True)
class Item:
    """A text, and what it asks for where the names of `domain` are on offer."""

    text: str
    domain: str
    intent: str
    slots: dict[str, str] = field(default_factory=dict)


def validation(folder: Path) -> list[Item]:
    found = load(folder).validation
    # Of a slot that comes twice the first counts, as a call has it.
    return [
        Item(i.text, i.domain, i.intent, {s.name: s.value for s in reversed(i.slots)})
        for i in found
    ]


def items_of(file: Path) -> list[Item]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Item(**json.loads(line)) for line in lines if line.strip()]


def question(model: str, item: Item) -> Json:
    """A request to an assistant model."""
    messages = [{"role": "user", "content": item.text}]
    return {"model": model, "messages": messages, "metadata": {"domain": item.domain}}


def plain_question(model: str, item: Item, names: Sequence[str]) -> Json:
    """The same of a chat model: the names in its system prompt, and a schema that allows no others."""
    told = (
        "Sort the user's message by what it asks for. Answer with the one name of this list that fits, or "
        f"with {OUT_OF_SCOPE} where none does: {', '.join(names)}."
    )
    schema = {
        "type": "object",
        "properties": {"name": {"enum": [*names, OUT_OF_SCOPE]}},
        "required": ["name"],
        "additionalProperties": False,
    }
    form = {
        "type": "json_schema",
        "json_schema": {"name": "intent", "strict": True, "schema": schema},
    }
    messages = [{"role": "system", "content": told}, {"role": "user", "content": item.text}]
    return {"model": model, "messages": messages, "response_format": form, "temperature": 0}


@dataclass(frozen=True)
class Said:
    """What came back: the intent, None where it abstained; the best intent in any case; the slots."""

    intent: str | None
    best: str
    slots: dict[str, Any]


def read(answer: Json) -> Said:
    message = answer["choices"][0]["message"]
    calls = message.get("tool_calls")
    if "edgeagent" not in answer:
        name = json.loads(message["content"])["name"]
        return Said(None if name == OUT_OF_SCOPE else name, name, {})
    best = answer["edgeagent"]["confidence"]["intent"]
    if not calls:
        return Said(None, best, {})
    function = calls[0]["function"]
    return Said(function["name"], best, json.loads(function["arguments"]))


def is_right(item: Item, said: Said) -> bool:
    return said.intent == (None if item.intent == OUT_OF_SCOPE else item.intent)


# --- figures on whole splits


def figures(items: Sequence[Item], said: Sequence[Said]) -> dict[str, float]:
    """Shares, by domain. `NAME` counts the best intent, as the forge does; `NAME as served` what clients
    get, where an abstention is wrong for what is in scope."""
    out: dict[str, float] = {}
    pairs = list(zip(items, said, strict=True))
    for domain in dict.fromkeys(item.domain for item in items):
        inside = [(i, s) for i, s in pairs if i.domain == domain and i.intent != OUT_OF_SCOPE]
        outside = [s for i, s in pairs if i.domain == domain and i.intent == OUT_OF_SCOPE]
        out[domain] = _share(s.best == i.intent for i, s in inside)
        out[f"{domain} as served"] = _share(s.intent == i.intent for i, s in inside)
        if outside:
            out[f"{domain} out-of-scope recall"] = _share(s.intent is None for s in outside)
        if any(i.slots for i, _ in inside):
            out[f"{domain} slot F1"] = slot_f1((i.slots, s.slots) for i, s in inside)
    return out


def slot_f1(pairs: Iterable[tuple[dict[str, str], dict[str, Any]]]) -> float:
    """Over all (slot, value) pairs that are wanted and that were found, exact ones only."""
    counts: Counter[str] = Counter()
    for wanted, found in pairs:
        counts.update(
            right=sum(found.get(name) == value for name, value in wanted.items()),
            all=len(wanted) + len(found),
        )
    return 2 * counts["right"] / counts["all"] if counts["all"] else 1.0


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else float("nan")


def evaluate(url: str, model: str, items: Sequence[Item], n_clients: int) -> dict[str, float]:
    """Figures of a model through a running daemon."""
    bodies = [question(model, item) for item in items]
    answers, _, _ = asyncio.run(exchanged(url, CHAT, bodies, n_clients))
    return figures(items, [read(answer) for answer in answers])


# --- how fast


def measured(url: str, bodies: Sequence[Json], items: Sequence[Item], n_clients: int) -> Json:
    """Requests per second, the median latency in ms, and the share that is right."""
    answers, took_s, all_s = asyncio.run(exchanged(url, CHAT, bodies, n_clients))
    right = [is_right(item, read(a)) for item, a in zip(items, answers, strict=True)]
    return {
        "clients": n_clients,
        "requests": len(bodies),
        "requests_s": len(bodies) / all_s,
        "median_ms": 1e3 * statistics.median(took_s),
        "accuracy": sum(right) / len(right),
        "prompt_tokens": answers[-1]["usage"]["prompt_tokens"],
    }


def compared(url: str, args: argparse.Namespace, assistant: Assistant) -> list[Json]:
    """Rows for both models, with 1 and 8 clients."""
    items = [item for item in validation(args.data) if item.domain == DOMAIN]
    items = items[:: max(1, len(items) // args.requests)][: args.requests]
    names = assistant.names(DOMAIN)
    rows = []
    for model, n in ((args.model, args.requests), (args.beside, args.beside_requests)):
        if not model:
            continue
        asked = items[:: max(1, len(items) // n)][:n]
        if model == args.model:
            bodies = [question(model, item) for item in asked]
        else:
            bodies = [plain_question(model, item, names) for item in asked]
        asyncio.run(exchanged(url, CHAT, bodies[:2], 1))  # loaded, compiled, the prompt cached
        for n_clients in (1, 8):
            rows.append({"model": model} | measured(url, bodies, asked, n_clients))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def show(rows: Sequence[Json]) -> None:
    print("\n| model | clients | requests/s | median latency | right | prompt tokens |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['clients']} | {row['requests_s']:.1f} | {row['median_ms']:.1f} ms | "
            f"{100 * row['accuracy']:.1f}% of {row['requests']} | {row['prompt_tokens']} |"
        )
    for ours, theirs in zip(rows[:2], rows[2:], strict=False):
        times = ours["requests_s"] / theirs["requests_s"]
        print(f"{ours['clients']} client(s): {times:.1f} times the requests/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="edge-assistant-s")
    parser.add_argument(
        "--beside", default="smollm2-135m-instruct", help="must be installed; empty: none"
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--shipped", type=Path, help="another folder like models/")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the data sets")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--beside-requests", type=int, default=100)
    parser.add_argument("--evaluate", metavar="val|FILE", help="figures instead of speed")
    parser.add_argument("--every", type=int, default=1, help="of the items only every so-manieth")
    parser.add_argument("--clients", type=int, default=8, help="with --evaluate")
    parser.add_argument("--url", help="a daemon that runs already, instead of one of our own")
    args = parser.parse_args()
    if min(args.requests, args.beside_requests, args.every, args.clients) < 1:
        raise SystemExit("--requests, --beside-requests, --every and --clients are 1 or more")
    print(describe())
    shipped = args.shipped or shipped_models_dir()
    settings = {"default_model": args.model, "shipped_models_dir": str(shipped)}
    own = serving(args.models_dir, **settings) if args.url is None else nullcontext(None)
    with own as daemon:
        if daemon is not None:
            daemon.wait_until_ready()
        url = daemon.url if daemon is not None else args.url
        if args.evaluate:
            is_val = args.evaluate == "val"
            items = validation(args.data) if is_val else items_of(Path(args.evaluate))
            found = evaluate(url, args.model, items[:: args.every], args.clients)
            for name, value in found.items():
                print(f"{name:<32} {100 * value:.2f}%")
            print(json.dumps({"model": args.model, "items": len(items[:: args.every])} | found))
        else:
            show(compared(url, args, read_assistant(shipped / "edge-assistant.json")))


if __name__ == "__main__":
    main()
