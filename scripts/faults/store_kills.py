"""kill -9 of a process that writes into a store, at random moments. Prints one table.

    .venv/bin/python scripts/faults/store_kills.py [--kills N] [--seed N] [--scratch DIR]

Each row is written to a pipe after it was acknowledged. After each kill the store is opened by the code
of the daemon, which checks every page, and every row acknowledged so far is looked for. The exit status
is 1 if one was missing or the file was damaged.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.store.kills import Campaign, Tally

KILLS_PER_FOLDER = 40  # so that the files, and the time to check them, stay small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=None, help="a folder on the disk to test")
    args = parser.parse_args()
    rng, tally = random.Random(args.seed), Tally()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        campaign = Campaign(Path(scratch) / "0", rng, tally)
        for n in track(range(args.kills), "killing", console=Console(stderr=True)):
            if n % KILLS_PER_FOLDER == 0:
                campaign = Campaign(Path(scratch) / str(n), rng, tally)
            campaign.kill_once()
    table = Table("kill -9", str(tally.kills))
    for name, count in list(asdict(tally).items())[1:]:
        table.add_row(name.replace("_", " "), str(count))
    Console().print(table)
    sys.exit(1 if tally.lost or tally.damaged else 0)


if __name__ == "__main__":
    main()
