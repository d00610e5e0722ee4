"""A log that lost its middle is not a log that lost its tail."""

from __future__ import annotations

import os
import shutil

import pytest

from edgeagent.store import wal_check
from edgeagent.store.recovery import earlier
from tests.store.conftest import insert, texts

FRAME = 24 + 4096


@pytest.fixture
def cut(opened, folder):
    """A store as a power cut leaves it, with 40 commits in its log."""
    store = opened()
    store.checkpoint().result()
    for n in range(40):
        store.write(insert(f"row {n}")).result()
    copy = folder.with_name("cut")
    shutil.copytree(folder, copy)
    store.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    return folder / "edgeagent.db-wal"


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(content)


def test_a_whole_log_is_recovered_without_a_word(cut, opened):
    assert len(wal_check.read(cut).commits) == 40
    store = opened()
    assert (store.notices, len(store.read(texts))) == ([], 40)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("within", [0, 5, 9, 17, 30, 2000, 4119])
def test_a_flipped_bit_in_the_log_is_said(cut, opened, place, within):
    n_frames = (cut.stat().st_size - 32) // FRAME
    flip(cut, 32 + int(n_frames * place) * FRAME + within)
    store = opened()
    assert [notice.code for notice in store.notices] == ["store_log_damaged"]
    assert len(store.read(texts)) < 40
    assert earlier(store.files) == store.notices
    store.close()
    assert opened().notices == []


@pytest.mark.parametrize("offset", [0, 9, 17, 20, 25])
def test_a_flipped_bit_in_the_head_of_the_log_is_said(cut, opened, offset):
    flip(cut, offset)
    store = opened()
    assert "header of the write-ahead log" in store.notices[0].message
    assert store.read(texts) == []


@pytest.mark.parametrize("n_bytes", [0, 10, 32, 40, 32 + FRAME * 3, 32 + FRAME * 20 + 700])
def test_a_log_that_is_cut_short_is_an_ordinary_power_cut(cut, opened, n_bytes):
    os.truncate(cut, n_bytes)
    assert opened().notices == []


def test_no_log_is_sound(tmp_path):
    assert wal_check.read(tmp_path / "none") == wal_check.WalSummary(True, ())
