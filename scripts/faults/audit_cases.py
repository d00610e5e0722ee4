"""Damage to the audit by somebody without its key, in chains of random length. Prints one table.

    .venv/bin/python scripts/faults/audit_cases.py [--cases N] [--seed N]

The exit status is 1 if `verify` missed a case.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.store import schema
from edgeagent.store.connection import connect
from tests.store.audit_cases import CASES, fill, is_found

ROUND = 100  # cases on one chain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    found = dict.fromkeys(CASES, 0)
    for first in track(range(0, args.cases, ROUND), "damaging", console=Console(stderr=True)):
        n_cases = min(ROUND, args.cases - first)
        with tempfile.TemporaryDirectory() as scratch:
            db = connect(Path(scratch) / "audit.db", os.urandom(32), role="writer")
            schema.first(db)
            n_rows = rng.randint(10, 300)
            fill(db, n_rows)
            for kind, damage in CASES.items():
                found[kind] += sum(is_found(db, damage(rng, n_rows)) for _ in range(n_cases))
            db.close()
    table = Table("damage", "cases", "found")
    for kind, n in found.items():
        table.add_row(kind, str(args.cases), str(n))
    Console().print(table)
    sys.exit(0 if all(n == args.cases for n in found.values()) else 1)


if __name__ == "__main__":
    main()
