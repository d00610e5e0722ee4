"""Two processes that write and checkpoint one database; the long run is scripts/faults/wal_race.py."""

from __future__ import annotations

from scripts.faults.wal_race import run


def test_two_connections_that_checkpoint_against_each_other_lose_nothing(tmp_path):
    found = run(tmp_path, seconds=1.0, seed=7)
    assert found["rows"] > 20 and found["checkpoints"] > 10
    assert (found["lost"], found["complaints"]) == (0, 0)
