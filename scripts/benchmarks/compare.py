"""Another version of edgeagent against this one: two daemons in turn, the medians of the ratios of each pair.

    scripts/bench compare DIR [--rounds 5] [--model smollm2-135m-instruct] [--path DIR]

DIR is a checkout of the other version (`git worktree add DIR REVISION`). Both run with the same interpreter
and libraries, so that only our code differs; what the other version needs besides goes into --path. Loopback
only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from tests.conftest import CACHE, ROOT, SMOLLM, installed

FIGURES = {
    "start_s": "start of the process to the first token, s",
    "one": "tokens/s, 1 client",
    "eight": "tokens/s, 8 clients",
    "daemon": "daemon, resident, MB",
    "own": "of these pages of its own, MB",
    "workers": "its workers, proportional, MB",
}
CLIENTS = 8


def measured(tree: Path, model: str, path: list[Path]) -> dict[str, float]:
    """The figures of one daemon that runs the code in `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "edgeagent.toml")
        # Names that every version knows.
        config.write_text(f"measure_when_idle = false\ndefault_model = {json.dumps(model)}\n")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("EDGEAGENT_")
        }
        environment = kept | {
            "PYTHONPATH": os.pathsep.join(map(str, [tree, *path])),
            "XDG_CONFIG_HOME": folder,
        }
        command = [
            sys.executable,
            "-m",
            "edgeagent",
            "serve",
            "--port",
            "0",
            "--config",
            str(config),
        ]
        command += ["--state-dir", f"{folder}/state", "--models-dir", str(CACHE)]
        started_s = time.perf_counter()
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+:\d+", process.stdout.readline())
            if found is None:
                raise SystemExit(f"{tree}: no daemon started:\n{Path(folder, 'log').read_text()}")
            return _figures(f"{found.group()}/v1/chat/completions", model, process.pid, started_s)
        finally:
            process.terminate()
            process.wait()


def _figures(url: str, model: str, pid: int, started_s: float) -> dict[str, float]:
    def chat(n_topic: int, max_tokens: int) -> int:
        text = f"Write a long story about topic number {n_topic}: a ship, a lamp and an orchard."
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        answer = httpx.post(url, json=body, timeout=300).raise_for_status().json()
        return int(answer["usage"]["completion_tokens"])

    chat(0, 1)
    start_s = time.perf_counter() - started_s
    chat(1, 16)
    begun_s = time.perf_counter()
    n_one = sum(chat(topic, 128) for topic in (2, 3))
    one_s, begun_s = time.perf_counter() - begun_s, time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        n_eight = sum(clients.map(lambda topic: chat(topic, 96), range(10, 10 + CLIENTS)))
    eight_s = time.perf_counter() - begun_s
    time.sleep(2)  # until the daemon has returned what the requests took
    daemon = psutil.Process(pid)
    memory = daemon.memory_info()
    workers = sum(child.memory_full_info().pss for child in daemon.children(recursive=True))
    return {
        "start_s": start_s,
        "one": n_one / one_s,
        "eight": n_eight / eight_s,
        "daemon": memory.rss / 1e6,
        "own": (memory.rss - memory.shared) / 1e6,
        "workers": workers / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=SMOLLM)
    parser.add_argument(
        "--path", type=Path, action="append", default=[], help="more for the PYTHONPATH of both"
    )
    options = parser.parse_args()
    if not (options.other / "edgeagent" / "__init__.py").is_file():
        raise SystemExit(f"{options.other} is no checkout of edgeagent.")
    installed(options.model)
    trees = {"other": options.other.resolve(), "this": ROOT}
    pairs: list[dict[str, dict[str, float]]] = []
    for n_round in range(options.rounds):
        names = list(trees) if n_round % 2 == 0 else list(trees)[::-1]
        pairs.append({name: measured(trees[name], options.model, options.path) for name in names})
        print(f"round {n_round + 1} of {options.rounds}", file=sys.stderr)
    table = Table("figure", "other", "this", "this over other", "rounds")
    for key, name in FIGURES.items():
        ratios = [pair["this"][key] / pair["other"][key] for pair in pairs]
        other, this = (statistics.median(pair[tree][key] for pair in pairs) for tree in trees)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(
            name, f"{other:.2f}", f"{this:.2f}", f"{statistics.median(ratios):.3f}", spread
        )
    Console(width=110).print(table)
