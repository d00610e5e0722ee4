"""How llama.cpp cuts the attention of a step into tiles, on a CPU.

The rows of all heads, one for each token, are cut into four parts for each thread, and each part into tiles
of `TILE` rows, none of which has rows of two heads or of two parts. A tile costs the same however few rows
it has: 64 tokens of 9 heads take 9 tiles on one thread, and 16 on two.
Source: `ggml_compute_forward_flash_attn_ext_f16` in ggml-cpu.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

from edgeagent.types.step_costs import TILE

PARTS = 4  # for each thread


@lru_cache(maxsize=4096)
def n_tiles(n_tokens: int, n_heads: int, n_threads: int) -> int:
    """Tiles of a step of at least `TILE` tokens."""
    n_rows = n_tokens * n_heads
    n_parts = 1
    if n_threads > 1:
        size = _ceil(n_rows, PARTS * n_threads)
        n_parts = max(n_threads, _ceil(n_rows, size))
    bounds = {*range(0, n_rows, n_tokens), *range(0, n_rows, _ceil(n_rows, n_parts)), n_rows}
    cuts = sorted(bounds)
    return sum(_ceil(end - begin, TILE) for begin, end in itertools.pairwise(cuts))


def n_tile_rows(n_tokens: int, n_heads: int, n_threads: int) -> float:
    """Rows that are computed for each head, those that only fill tiles among them."""
    if n_heads == 0:  # unknown
        return max(TILE, n_tokens)
    return TILE * n_tiles(n_tokens, n_heads, n_threads) / n_heads


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
