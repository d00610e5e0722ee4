"""How long the steps of a model take on a device, by their number of tokens."""

from __future__ import annotations

import msgspec


class StepCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What steps of one model cost with `n_threads` threads, for attention with `n_heads` heads.

    `step_s`: seconds of a step by its number of tokens, alone in the cache. `alone_s`: the same with one
    thread, at some sizes. `cell_s` are added for each cell that each token attends to in steps below `TILE`
    tokens; from there on `tiled_cell_s` for each cell that each row of a tile attends to. Zero: unknown.
    """

    step_s: dict[int, float]
    alone_s: dict[int, float] = {}
    cell_s: float = 0.0
    tiled_cell_s: float = 0.0
    n_threads: int = 0
    n_heads: int = 0


# From this many tokens in a step on, llama.cpp computes attention in tiles of as many queries, below it one
# query at a time: the cost of a step can fall there (`ggml_fa_tile_config::Q` in ggml-cpu).
TILE = 64
# The most tokens of a chunk that is computed beside answers, on one thread.
MOST_BESIDE = 3 * TILE
# Fewer tokens of a prompt are computed beside answers at about the same cost as apart from them.
LEAST_APART = 32

# Up to so many tokens, each has logits in the steps that are measured, as in steps that decode.
MOST_WITH_LOGITS = 8
