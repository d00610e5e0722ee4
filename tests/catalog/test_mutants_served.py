"""A sample of the lying models is installed and dropped beside a daemon: the daemon stays, none is good.

All of them: scripts/faults/gguf_mutants.py, which this runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_mutant_ends_the_daemon_or_is_registered_after_a_failed_trial(
    stories: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "faults" / "gguf_mutants.py", stories,
         "--every", "25", "--refused-every", "120", "--scratch", tmp_path],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[1:])
    counts = {name.strip(): int(count) for name, count in rows.items()}
    assert counts["mutants"] >= 500
    assert counts["header passed"] + counts["header refused"] == counts["mutants"]
    # Both kinds came up: the sample is one that can find something.
    assert counts["trial good"] >= 1
    assert counts["trial refused"] + counts["worker died"] >= 1
    assert counts["tried"] >= 8
    assert counts["asked"] >= 12
    assert counts["registered although failed"] == counts["daemon exits"] == 0
