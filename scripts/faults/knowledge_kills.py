"""kill -9 of the daemon while it indexes documents, files and stores being deleted meanwhile. Prints counts.

    .venv/bin/python scripts/faults/knowledge_kills.py [--kills N] [--files N] [--paragraphs N]

Tiny files and one large one are sent, and put into two vector stores. The daemon is killed again and again
while it indexes. One store is deleted before the last kills. At the end the other store must have every
chunk once, with its words and, where an embedding model is there, its vector, and nothing may be left of the
deleted one. The exit status is 1 where something is missing, doubled or left.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.knowledge.document import ChunkSizes, ParserLimits
from edgeagent.knowledge.parsing import parse
from edgeagent.settings import resolve
from edgeagent.store.connection import complaints
from edgeagent.store.database import open_store
from scripts.benchmarks.served import serving

LONGEST_S = 3.0
TIMEOUT_S = 600.0


def document(n: int) -> bytes:
    return f"# Note {n}\n\nThe harbour number {n} is deep, and boat {n} lies there.\n".encode()


def large(n_paragraphs: int) -> bytes:
    draw = random.Random(1)
    words = [f"word{n}" for n in range(2000)]
    lines = (" ".join(draw.choices(words, k=60)) + ".\n\n" for _ in range(n_paragraphs))
    return "".join(lines).encode()


def put(http: httpx.Client, files: list[tuple[str, bytes]]) -> tuple[str, str]:
    """Two stores with all files."""
    ids = []
    for name, data in files:
        sent = http.post("/v1/files", data={"purpose": "assistants"}, files={"file": (name, data)})
        sent.raise_for_status()
        ids.append(sent.json()["id"])
    stores = []
    for name in ("kept", "gone"):
        made = http.post("/v1/vector_stores", json={"name": name})
        store = made.json()["id"]
        for at in range(0, len(ids), 500):
            batch = {"file_ids": ids[at : at + 500]}
            http.post(f"/v1/vector_stores/{store}/file_batches", json=batch).raise_for_status()
        stores.append(store)
    return stores[0], stores[1]


def counts(state: Path, key: Path) -> dict[str, Any]:
    """What is in the database of a daemon that does not run."""
    settings = resolve(flags={"state_dir": state, "store_key_file": key}).settings
    with open_store(settings) as store:
        damage = store.maintain(complaints).result()
        return store.read(_counted) | {"damage": damage}


def _counted(db: Any) -> dict[str, Any]:
    tables = ("chunk", "chunk_fts", "chunk_bits", "chunk_vector", "vector_store")
    found = {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
    twice = "select 1 from chunk group by file_n, position having count(*) > 1"
    found["doubled"] = db.execute(f"select count(*) from ({twice})").fetchone()[0]
    unfinished = "select count(*) from vector_store_file where status != 'completed'"
    found["open"] = db.execute(unfinished).fetchone()[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--paragraphs", type=int, default=2500, help="of the large document")
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    files = [(f"{n}.md", document(n)) for n in range(args.files)] + [
        ("large.txt", large(args.paragraphs))
    ]
    n_chunks = sum(len(parse(n, data, ChunkSizes(), ParserLimits())) for n, data in files)
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        state, key = Path(folder, "state"), Path(folder, "store.key")
        settings: dict[str, Any] = {
            "state_dir": str(state), "store_key_file": str(key), "preload": False
        }  # fmt: skip
        kept = gone = ""
        for n in track(range(args.kills + 1), "kills"):
            with serving(args.models_dir, **dict(settings)) as daemon:
                http = httpx.Client(base_url=daemon.url, timeout=120)
                if n == 0:
                    kept, gone = put(http, files)
                if n == args.kills // 2:
                    http.delete(f"/v1/vector_stores/{gone}").raise_for_status()
                if n < args.kills:
                    time.sleep(draw.uniform(0.05, LONGEST_S))
                    daemon.process.kill()
                    continue
                deadline = time.monotonic() + TIMEOUT_S
                while http.get(f"/v1/vector_stores/{kept}").json()["status"] != "completed":
                    if time.monotonic() > deadline:
                        raise SystemExit(f"not indexed after {TIMEOUT_S:g} s")
                    time.sleep(0.2)
        found = counts(state, key)
    has_vectors = found["chunk_vector"] > 0
    wanted = {"chunk": n_chunks, "chunk_fts": n_chunks, "vector_store": 1, "doubled": 0, "open": 0}
    if has_vectors:
        wanted |= {"chunk_bits": n_chunks, "chunk_vector": n_chunks}
    wrong = {name: found[name] for name, n in wanted.items() if found[name] != n}
    print(f"kills={args.kills} files={len(files)} chunks={n_chunks} found={found} wrong={wrong}")
    sys.exit(1 if wrong or found["damage"] else 0)


if __name__ == "__main__":
    main()
