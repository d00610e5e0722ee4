"""Descriptors that were closed by whoever started the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from edgeagent.cli.shared.standard_streams import open_missing
open_missing()
print("told"), print("told", file=sys.stderr), sys.stdin.read()
with open(sys.argv[1], "w") as file:
    file.write(" ".join(os.readlink(f"/proc/self/fd/{n}") for n in range(3)))
"""


def test_what_is_closed_becomes_the_null_device_and_nothing_else(tmp_path: Path):
    place = tmp_path / "places"
    for closing in ("<&- >&- 2>&-", ">&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -c "$1" "$2" {closing}', sys.executable, PROGRAM, str(place)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        places = place.read_text().split()
        assert places[:2] == ["/dev/null"] * 2 and done.stdout == ""
        assert (places[2] == "/dev/null", done.stderr) in [(True, ""), (False, "told\n")]
