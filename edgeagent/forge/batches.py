"""Batches of items of similar length, so that there is little padding."""

from __future__ import annotations

import random
from collections.abc import Sequence


def bucketed(lengths: Sequence[int], batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of all items in batches of at most `batch_tokens` tokens, padding included.

    The same for the same seed and epoch. Items of similar length are taken from chunks of the shuffled
    items, so that batches differ between epochs. An item longer than a batch is a batch by itself.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    chunk = 4096
    for start in range(0, len(order), chunk):
        batch: list[int] = []
        for index in sorted(order[start : start + chunk], key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * max(lengths[index], lengths[batch[0]]) > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(index)
        if batch:
            batches.append(batch)
    rng.shuffle(batches)
    return batches
