"""Simulated power cuts under a writing process. Prints one table.

    .venv/bin/python scripts/faults/power_cuts.py [--cuts N] [--rounds N] [--seed N]

The system calls of a writing process are recorded with strace; at each cut what was not synced is kept,
dropped or torn at random, and the store is opened by the code of the daemon, which checks every page.
synchronous=NORMAL is shown beside it, which acknowledges before the disk has the row. The exit status is
1 if FULL lost an acknowledged row or left a damaged file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.store.power import cut_power, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    table = Table(
        "synchronous", "disk requests", "rows acknowledged", "cuts", "cuts that lost rows",
        "rows lost", "damaged", "log called damaged",
    )  # fmt: skip
    is_broken, shm = False, Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as scratch:
        for mode in ("FULL", "NORMAL"):
            folder = Path(scratch) / mode.lower()
            ops = record(folder, mode, args.rounds)
            tally = cut_power(ops, folder, args.cuts, args.seed, Path(scratch) / "image")
            row = [len(ops) - tally.acknowledged, tally.acknowledged, tally.cuts]
            row += [tally.cuts_that_lost, tally.rows_lost, tally.damaged, tally.said_of_log]
            table.add_row(mode, *map(str, row))
            is_broken |= mode == "FULL" and bool(
                tally.rows_lost or tally.damaged or tally.said_of_log
            )
            for complaint in tally.complaints[:5]:
                print(complaint, file=sys.stderr)
    Console(width=110).print(table)
    sys.exit(is_broken)


if __name__ == "__main__":
    main()
