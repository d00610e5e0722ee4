"""Options of the benchmarks that choose tensor types by measured sensitivity."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(
    name: str, about: str | None, *, ctx: int, chunks: tuple[int, int, int], together: int
) -> argparse.ArgumentParser:
    """A parser with the model, the texts and how much of each is used. `chunks`: for the importance matrix,
    for tuning, and held out."""
    found = argparse.ArgumentParser(
        prog=f"scripts/bench {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("model", type=Path, help="F16 file")
    found.add_argument("--dir", type=Path, required=True, help="the work, to go on with")
    for option in ("--text", "--tune", "--held-out"):
        found.add_argument(option, type=Path, action="append", required=True, metavar="FILE")
    found.add_argument("--ctx", type=int, default=ctx, help="tokens of a chunk")
    for option, n in zip(
        ("--text-chunks", "--tune-chunks", "--held-out-chunks"), chunks, strict=True
    ):
        found.add_argument(option, type=int, default=n)
    found.add_argument("--layers-together", type=int, default=together)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--special", action="store_true", help="texts have names of special tokens")
    return found
