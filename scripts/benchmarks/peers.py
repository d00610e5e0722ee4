"""edgeagent beside llama-server: the same model, threads, sequences and cells, loaded in turn.

    scripts/bench peers --llama-server BIN [--rounds 5] [--only eight,dialogues] [--keep FILE]

The binary is yours; what it is compared with is the llama.cpp of llama-cpp-python, so build it from the
source in the same release, which has it in vendor/llama.cpp:

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release \\
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF
    cmake --build build --target llama-server -j 2

On processors with AMX a server built by GCC 12 crashes: add -DGGML_NATIVE=OFF -DGGML_AVX512=ON
-DGGML_AVX512_VNNI=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON.

Both servers run all the time, and one of them at a time has work. Which one is first alternates. Ratios
are ours over theirs within a round; the table has their medians. --keep adds the rounds to those of
earlier runs in a file, for a measurement in several parts. --rounds 0 measures nothing: with --write it draws
the --chart of the table there. --peer-file GGUF: llama-server has another file of the model, such as the
published one where `models install --requantize` made ours of it. --beside N: with N busy processes. Loopback
only.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edgeagent.catalog.model_library import Library
from scripts.benchmarks import machine
from scripts.benchmarks.engine import MODEL, load
from scripts.benchmarks.governor import busy
from scripts.benchmarks.peers_report import (
    chart,
    markdown,
    merged,
    read_section,
    rows_of,
    write_section,
)
from scripts.benchmarks.served import serving_measured
from tests.conftest import CACHE

LIMIT_S = 60.0  # until a server must be ready


@dataclass(frozen=True)
class Workload:
    """A load of `clients`, each with `requests` one after another."""

    kind: str
    clients: int
    requests: int
    max_tokens: int


WORKLOADS = {
    "one": Workload("chat", 1, 3, 96),
    "eight": Workload("chat", 8, 2, 64),
    "prefix": Workload("prefix", 8, 2, 32),
    "dialogues": Workload("dialogue", 8, 5, 40),
    "json 1": Workload("json", 1, 4, 200),
    "json 8": Workload("json", 8, 2, 200),
    "long": Workload("long", 4, 1, 24),
    "copy": Workload("copy", 1, 2, 128),
}


@contextlib.contextmanager
def llama_server(binary: Path, model: Path, args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The address and process id of a llama-server with this model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", str(args.n_ctx), "--parallel", str(args.n_seq)]
    command += ["--threads", str(args.threads), *args.peer_options.split()]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, process)
            yield url, process.pid
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-2000:].decode("utf-8", "replace"))
            raise
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT_S:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        if process.poll() is not None:
            raise SystemExit("llama-server ended; its messages are above.")
        time.sleep(0.05)
    raise SystemExit(f"llama-server was not ready after {LIMIT_S:.0f} s.")


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A record of each workload in each round: the figures of both, and what else the machine did."""
    model = Library(args.models_dir).resolve(args.model)
    their_file = args.peer_file or model.path
    settings = {"n_ctx": args.n_ctx, "n_seq": args.n_seq, "n_threads": args.threads}
    settings |= {"default_model": model.id} | json.loads(args.settings)
    found = []
    with (
        contextlib.ExitStack() as beside,
        tempfile.TemporaryDirectory() as state,
        serving_measured(args.models_dir, state, **settings) as ours,
        llama_server(args.llama_server, their_file, args) as (their_url, their_pid),
    ):
        ours.wait_until_ready()
        servers = {"ours": (ours.url, ours.process.pid), "theirs": (their_url, their_pid)}
        for url, _ in servers.values():
            load(url, max_tokens=8, salt=9000)
            load(url, workload="json", max_tokens=200, salt=9000)
        beside.enter_context(busy(args.beside))
        for n_round in range(args.first_round, args.first_round + args.rounds):
            order = list(servers.items()) if n_round % 2 == 0 else list(servers.items())[::-1]
            for name in args.only:
                work = WORKLOADS[name]
                quiet = machine.Quiet()
                figures: dict[str, Any] = {}
                for side, (url, pid) in order:
                    figures[side] = _loaded(url, pid, work, n_round)
                figures |= {"workload": name, "round": n_round, "others": quiet.others()}
                figures |= {"model": model.id, "file": model.path.name, "n_seq": args.n_seq}
                figures["peer_file"] = their_file.name
                figures |= {"beside": args.beside, "date": datetime.date.today().isoformat()}
                found.append(figures)
                ratio = figures["ours"]["tok_s"] / figures["theirs"]["tok_s"]
                print(f"round {n_round}, {name}: {ratio:.2f}", file=sys.stderr)
    return found


def _loaded(url: str, pid: int, work: Workload, n_round: int) -> dict[str, Any]:
    got = load(
        url,
        workload=work.kind,
        clients=work.clients,
        requests=work.requests,
        max_tokens=work.max_tokens,
        salt=100 * n_round,
        shared=100 + n_round,
        on_failure="count",
    )
    rate = got["all_tok_s"] if work.kind == "long" else got["out_tok_s"]
    return {
        "tok_s": rate,
        "ttft_p50_s": got["ttft_p50_s"],
        "ttft_p95_s": got["ttft_p95_s"],
        "gap_p95_s": got["itl_p95_s"],
        "failed": got["failed"],
        "memory": machine.memory_bytes(pid),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--llama-server", type=Path, metavar="BIN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-round", type=int, default=0, help="its number, and the questions")
    parser.add_argument("--only", default=",".join(WORKLOADS), help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--models-dir", type=Path, default=CACHE)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--peer-file", type=Path, metavar="GGUF", help="of llama-server; ours")
    parser.add_argument("--n-ctx", type=int, default=16384, help="cells of all sequences")
    parser.add_argument("--n-seq", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="busy processes")
    parser.add_argument("--settings", default="{}", help="more settings of ours, as JSON")
    parser.add_argument("--peer-options", default="", help="more options of llama-server")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="collect rounds in this file")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="MD",
        help="put the rows of these workloads into the table there",
    )
    parser.add_argument(
        "--replace", action="store_true", help="also rows of more rounds than this run has"
    )
    parser.add_argument(
        "--chart",
        type=Path,
        metavar="PNG",
        help="draw the ratios, with --write those of the whole table",
    )
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if args.rounds and args.llama_server is None:
        parser.error("--llama-server BIN is needed, unless --rounds is 0")
    records = measured(args) if args.rounds else []
    if args.keep is not None:
        if args.keep.exists():
            records = json.loads(args.keep.read_text()) + records
        args.keep.write_text(json.dumps(records))
    if not records and args.write is None:
        parser.error("nothing was measured, and nothing is kept: raise --rounds")
    rows = rows_of(records)
    if records:
        others = statistics.median(record["others"] for record in records)
        print(f"{machine.describe()}; other processes used {others:.0%} of it.\n\n{markdown(rows)}")
    if args.write is not None:
        rows = merged(read_section(args.write), rows, replaces=args.replace)
        write_section(args.write, rows)
    if args.chart is not None:
        chart(rows, args.chart)
