"""kill -9 among keys and erasures: `scripts/faults/entry_kills.py` does more."""

from __future__ import annotations

import random

from tests.store.entry_kills import Campaign


def test_kills_revive_nothing_and_lock_nobody_out(tmp_path):
    campaign = Campaign(tmp_path / "state", random.Random(5))
    for _ in range(3):
        campaign.kill_once()
    tally = campaign.tally
    assert tally.acknowledged > 4 and campaign.revoked
    assert (tally.revived_keys, tally.revived_rows, tally.open_or_locked) == (0, 0, 0)
    # A rotation may be on the disk and its acknowledgement not heard: one key for each kill at most.
    assert (tally.lost_rows, tally.lost_keys <= tally.kills) == (0, True)
