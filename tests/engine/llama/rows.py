"""Rows of tokens for a runner on the story model, and its logits."""

from __future__ import annotations

from array import array

import numpy as np

from edgeagent.engine.batching.step_runner import LlamaRunner, Row

MANY = 1 << 20  # cells in use, as the runner is told: a context of its own is worth it
CLOSE = 0.1  # between logits of steps of other sizes


def row(seq_id: int, n: int, first: int, n_outputs: int = 1) -> Row:
    tokens = array("i", [(7919 * i + 31 * seq_id + 13) % 500 for i in range(first, first + n)])
    return Row(seq_id, tokens, first, n_outputs)


def logits(runner: LlamaRunner, rows: list[Row], n_used: int) -> np.ndarray:
    return np.array(runner.run(rows, n_used))
