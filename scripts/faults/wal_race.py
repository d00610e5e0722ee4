"""Two connections to one database in WAL mode, checkpointing against each other: the race of SQLite's
WAL-reset bug (3.7.0 to 3.51.2, sqlite.org/wal.html).

    .venv/bin/python scripts/faults/wal_race.py --seconds 60

One process writes rows and checkpoints (RESTART, TRUNCATE, PASSIVE in turn), another does the same, both
as the store opens its connections. Every acknowledged row must be there at the end, and the whole file
must check. Prints counts; exit status 1: something was lost or damaged.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from edgeagent.store.connection import SqliteError, complaints, connect, set_wal

MODES = ("RESTART", "TRUNCATE", "PASSIVE", "FULL")


def race(path: Path, key: bytes, name: str, seconds: float, seed: int, told: Any) -> None:
    """Write and checkpoint until the time is over; tell how many rows were acknowledged."""
    rng = random.Random(seed)
    db = connect(path, key, role="writer")
    set_wal(db, "FULL")
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with db.atomic():
                for _ in range(rng.randrange(1, 8)):
                    n = counts["rows"] + counts["pending"]
                    text = "x" * rng.randrange(1, 6000)
                    db.execute("insert into race values (?, ?, ?)", (name, n, text))
                    counts["pending"] += 1
            counts["rows"] += counts.pop("pending")
        except SqliteError:
            counts.pop("pending", None)
            counts["busy"] += 1
        if rng.random() < 0.4:
            try:
                db.execute(f"PRAGMA wal_checkpoint({rng.choice(MODES)})").fetchall()
                counts["checkpoints"] += 1
            except SqliteError:
                counts["busy"] += 1
    db.close()
    told.put((name, dict(counts)))


def run(folder: Path, seconds: float, seed: int) -> dict[str, int]:
    """One race of two processes. Gives rows, checkpoints, refusals, rows lost and complaints."""
    path, key = folder / "race.db", os.urandom(32)
    db = connect(path, key, role="writer")
    set_wal(db, "FULL")
    db.execute("create table race (name text, n integer, text text, primary key (name, n)) strict")
    db.close()
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    racers = [
        context.Process(target=race, args=(path, key, name, seconds, seed + at, told))
        for at, name in enumerate(("a", "b"))
    ]
    for racer in racers:
        racer.start()
    found = dict(told.get(timeout=seconds + 60) for _ in racers)
    for racer in racers:
        racer.join()
    db = connect(path, key, role="copy")
    n_lost = 0
    for name, counts in found.items():
        there = db.execute("select count(*), max(n) from race where name = ?", (name,)).fetchone()
        n_lost += abs(counts.get("rows", 0) - there[0])
    wrong = complaints(db)
    db.close()
    total = Counter({"lost": n_lost, "complaints": len(wrong)})
    for counts in found.values():
        total.update(counts)
    return dict(total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.seconds, options.seed)
    print(" ".join(f"{name}={n}" for name, n in sorted(found.items())))
    return int(bool(found["lost"] or found["complaints"]))


if __name__ == "__main__":
    sys.exit(main())
