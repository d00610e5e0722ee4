"""Simulated power cuts, the short version of `scripts/faults/power_cuts.py`."""

from __future__ import annotations

import shutil

import pytest

from tests.conftest import n_examples
from tests.store.power import Disk, Op, cut_power, record

N_CUTS = n_examples(400)
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@needs_strace
def test_no_power_cut_loses_an_acknowledged_row(tmp_path):
    folder = tmp_path / "store"
    ops = record(folder, "FULL", 60)
    tally = cut_power(ops, folder, N_CUTS, 1, tmp_path / "scratch")
    assert tally.acknowledged > 80
    assert (tally.cuts, tally.cuts_that_lost, tally.complaints) == (N_CUTS, 0, [])
    assert tally.said_of_log == 0


@needs_strace
def test_the_simulation_does_lose_rows_where_the_store_does_not_wait_for_the_disk(tmp_path):
    folder = tmp_path / "store"
    ops = record(folder, "NORMAL", 60)
    tally = cut_power(ops, folder, N_CUTS // 2, 1, tmp_path / "scratch")
    assert tally.cuts_that_lost > N_CUTS // 10
    assert tally.complaints == []


def test_only_what_was_synced_is_sure_to_be_there():
    import random

    seen = set()
    for seed in range(200):
        disk = Disk()
        for op in (
            Op("create", 1, name="/f"),
            Op("write", 1, 0, b"safe"),
            Op("sync", 1),
            Op("sync_folder", name="/"),
            Op("write", 1, 4, b"A" * 512 + b"B" * 512),
        ):
            disk.take(op)
        content = disk.cut(random.Random(seed))["/f"]
        assert content.startswith(b"safe")
        seen.add(bytes(sorted(set(content[4:]))))
    assert {b"", b"AB", b"A", b"\0B"} <= seen
