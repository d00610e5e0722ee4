"""`scripts/bench knowledge-search`: how long searches take in a knowledge base of many chunks.

Chunks are those of Python's documentation (`scripts/bench knowledge` fetches it), written into a new database
with random vectors, so that nothing has to be embedded first; the questions are those of its FAQ, and their
vectors are made by the model as always. Times are those of requests over HTTP.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from array import array
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from edgeagent.knowledge.document import ChunkSizes, ParserLimits
from edgeagent.knowledge.parsing import parse
from edgeagent.settings import resolve
from edgeagent.store import chunks, documents, vector_stores
from edgeagent.store.chunks import NewChunk, StoredVector, stored_vector
from edgeagent.store.database import open_store
from edgeagent.store.documents import DocumentBounds, NewDocument
from edgeagent.store.sql import now_ms
from edgeagent.store.vector_stores import NewStore, NewStoreFile
from scripts.benchmarks import machine
from scripts.benchmarks.knowledge import entries, others, unpacked
from scripts.benchmarks.served import serving

OWNER = "local"
MODEL = "all-minilm-l6-v2"
WIDTH = 384
METHODS = ("words", "vectors", "hybrid")
STORE = "vs_" + "1" * 32


def texts(root: Path, n: int) -> list[NewChunk]:
    """`n` chunks; the documentation again and again if it has fewer."""
    found: list[NewChunk] = []
    while len(found) < n:
        for name, data in others(root):
            for chunk in parse(name, data, ChunkSizes(), ParserLimits()):
                found.append(
                    NewChunk(text=chunk.text, headings=chunk.headings, page=None, answer=None)
                )
            if len(found) >= n:
                break
    return found[:n]


def vectors(n: int) -> list[StoredVector]:
    draw = random.Random(1)
    return [
        stored_vector(array("f", [draw.gauss(0, 1) for _ in range(WIDTH)]).tobytes())
        for _ in range(n)
    ]


def fill(db: Any, new: list[NewChunk], made: list[StoredVector]) -> None:
    """A store with one document of all chunks."""
    at = now_ms()
    document = NewDocument(
        id="file-" + "1" * 32,
        owner=OWNER,
        name="all.txt",
        purpose="assistants",
        digest="1",
        n_bytes=1,
    )
    documents.add(db, document, DocumentBounds(n_documents=10, n_bytes=1 << 20), now_ms=at)
    documents.add_parts(db, document.id, 0, [b"x"])
    documents.complete(db, document.id)
    vector_stores.add(db, NewStore(id=STORE, owner=OWNER, name="all", metadata={}), 10, now_ms=at)
    row = vector_stores.get(db, OWNER, STORE)
    assert row is not None
    file = NewStoreFile(id="vsf_1", document_id=document.id, sizes=(200, 0), attributes={})
    vector_stores.add_files(db, OWNER, row["n"], [file], 10, now_ms=at)
    (opened,) = vector_stores.open_files(db, models=[], last_owner=None, besides=[])
    chunks.add(db, opened.n, 0, new)
    vector_stores.set_parsed(db, opened.n)
    vector_stores.set_model(db, row["n"], MODEL)
    waiting = chunks.without_vector(db, [opened.n], len(new))
    rows = [(number, file_n, one) for (number, file_n, _), one in zip(waiting, made, strict=True)]
    chunks.add_vectors(db, row["n"], rows)
    vector_stores.finish(db, [opened.n], is_embedded=True)


def measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    root = unpacked(args.cache)
    questions = [entry.question for entry in entries(root) if entry.corpus == "python"]
    new, made = texts(root, args.chunks), vectors(args.chunks)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        state, key = Path(folder, "state"), Path(folder, "store.key")
        settings = resolve(flags={"state_dir": state, "store_key_file": key}).settings
        with open_store(settings) as store:
            store.write(lambda db: fill(db, new, made)).result()
        own = {
            "state_dir": str(state), "store_key_file": str(key), "n_threads": args.threads,
            "engine.int8_encoders": args.int8_encoders,
        }  # fmt: skip
        with serving(args.models_dir, preload=False, **own) as daemon:
            http = httpx.Client(base_url=daemon.url, timeout=120)
            for method in METHODS:
                times = []
                for question in islice(questions * 10, args.requests + 5):
                    body = {
                        "query": question,
                        "search_method": method,
                        "ranking_options": {"ranker": "none"},
                    }
                    started = time.perf_counter()
                    reply = http.post(f"/v1/vector_stores/{STORE}/search", json=body)
                    times.append(1e3 * (time.perf_counter() - started))
                    if reply.status_code != 200 or not reply.json()["data"]:
                        raise SystemExit(reply.text)
                cuts = statistics.quantiles(times[5:], n=20)
                found[method] = {"p50 ms": cuts[9], "p95 ms": cuts[18]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench knowledge-search", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/knowledge"))
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8-encoders", choices=("auto", "on", "off"), default="auto")
    args = parser.parse_args()
    table = Table(f"{args.chunks} chunks", "p50 ms", "p95 ms", title=machine.describe())
    for method, values in measure(args).items():
        table.add_row(method, *(f"{value:.1f}" for value in values.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
