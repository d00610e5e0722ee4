"""Moving cells on a real model: what was cached says the same afterwards."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from edgeagent.engine.batching.kv_cache import CellRun
from edgeagent.engine.llama import kv_packing
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig


@pytest.fixture(params=[False, True])
def llama(request, stories):
    llama = Llama(
        EngineConfig(
            model_id="s",
            path=str(stories),
            n_ctx=512,
            n_seq=4,
            n_threads=1,
            reproducible=request.param,
        )
    )
    yield llama
    llama.close()


def _run(llama: Llama, seq_id: int, tokens: array[int], first_pos: int) -> np.ndarray:
    llama.batch.clear()
    llama.batch.add(seq_id, tokens, first_pos, n_outputs=1)
    return llama.decode()[0].copy()


def test_what_was_moved_gives_the_same_logits(llama):
    story = llama.tokenize("Once upon a time there was a little girl named Lily.", add_special=True)
    other = llama.tokenize(
        "The sun was warm and the dog ran in the park all day.", add_special=True
    )
    n, m = len(story), len(other)
    one = array("i", [story[3]])

    def fill() -> None:
        llama.clear()
        _run(llama, 3, other * 4, 0)  # goes away, and leaves holes
        _run(llama, 0, story, 0)
        llama.copy(0, 1, n - 2)  # shares all but two cells
        _run(llama, 1, other[:5], n - 2)
        _run(llama, 2, other, 0)
        llama.trim(3, 0)

    ends = {0: n, 1: n + 3, 2: m}
    fill()
    expected = {seq: _run(llama, seq, one, end) for seq, end in ends.items()}
    fill()
    kv_packing.pack(
        llama,
        [
            CellRun(frozenset({0, 1}), 0, n - 2),
            CellRun(frozenset({0}), n - 2, 2),
            CellRun(frozenset({1}), n - 2, 5),
            CellRun(frozenset({2}), 0, m),
        ],
    )
    for seq, end in ends.items():
        np.testing.assert_allclose(_run(llama, seq, one, end), expected[seq], atol=0.02)
    # Shared cells are still shared: all of the cache is free for the rest.
    n_used = n + 5 + m + len(ends)
    _run(llama, 3, (other * 64)[: llama.n_ctx - n_used], 0)


def test_a_cache_too_large_to_lift_is_not_moved(llama, monkeypatch):
    assert kv_packing.n_movable(llama) > llama.n_ctx
    monkeypatch.setattr(kv_packing, "MAX_MOVED_BYTES", 1000)
    assert kv_packing.n_movable(llama) < llama.n_ctx
