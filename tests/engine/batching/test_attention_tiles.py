"""Tiles of attention, by table: counted by hand from how the rows are cut."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.attention_tiles import n_tile_rows, n_tiles


@pytest.mark.parametrize(
    ("n_tokens", "n_heads", "n_threads", "expected"),
    [
        (64, 9, 1, 9),  # one for each head
        (64, 9, 2, 16),  # eight parts of 72 rows: each has rows of two heads
        (65, 9, 1, 18),  # a second one with one row
        (128, 9, 2, 24),
        (512, 9, 2, 72),  # parts of 576 rows end where tiles do
        (64, 8, 2, 8),  # a head for each part
        (64, 1, 2, 8),  # parts of eight rows
        (64, 32, 4, 32),
    ],
)
def test_rows_are_cut_by_heads_parts_and_tiles(n_tokens, n_heads, n_threads, expected):
    assert n_tiles(n_tokens, n_heads, n_threads) == expected


def test_rows_of_one_head_count_those_that_fill_tiles():
    assert n_tile_rows(128, 9, 1) == 128
    assert n_tile_rows(64, 9, 2) == pytest.approx(64 * 16 / 9)
    assert (n_tile_rows(40, 0, 2), n_tile_rows(100, 0, 2)) == (64, 100), "heads are unknown"
