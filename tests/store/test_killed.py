"""kill -9 at random moments: every acknowledged row is there. `scripts/faults/store_kills.py` does more."""

from __future__ import annotations

import random

from tests.conftest import n_examples
from tests.store.kills import Campaign


def test_no_acknowledged_row_is_lost_by_kill_9(tmp_path):
    campaign = Campaign(tmp_path / "store", random.Random(20261122))
    for _ in range(n_examples(24)):
        campaign.kill_once()
    tally = campaign.tally
    assert tally.acknowledged > 100
    assert (tally.lost, tally.damaged) == (0, 0), tally
