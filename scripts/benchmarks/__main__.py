"""`scripts/bench NAME`: one module of this folder for each name."""

from __future__ import annotations

import importlib
import sys

NAMES = {"engine": "the served path against a bare llama.cpp loop, prefixes, memory, start"}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print("Usage: scripts/bench NAME [--help]\n")
        for name, what in NAMES.items():
            print(f"  {name:<10} {what}")
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    name = sys.argv.pop(1)
    importlib.import_module(f"scripts.benchmarks.{name}").main()


main()
