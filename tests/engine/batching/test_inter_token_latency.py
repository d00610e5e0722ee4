"""The time between two tokens, counted by step."""

from __future__ import annotations

from edgeagent.engine.batching.inter_token_latency import TokenGaps
from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S


def test_each_decoding_sequence_counts_the_time_since_the_step_before():
    gaps = TokenGaps()
    gaps.end_step(0, 100.0)  # a prompt
    gaps.end_step(2, 100.02)
    gaps.end_step(3, 100.5)
    found = gaps.histogram
    counts = dict(zip((*TOKEN_GAP_BOUNDS_S, None), found.counts, strict=True))
    assert counts[0.025] == 2 and counts[0.5] == 3
    assert sum(found.counts) == 5
    assert round(found.total, 6) == round(2 * 0.02 + 3 * 0.48, 6)


def test_a_gap_above_all_bounds_is_counted_last():
    gaps = TokenGaps()
    gaps.end_step(0, 0.0)
    gaps.end_step(1, 1000.0)
    assert gaps.histogram.counts[-1] == 1
