"""Decides how many drafted tokens a step verifies: pure functions over plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# How much more a step must promise with drafts than without: estimates are not exact, and what a longer step
# has verified comes all at once.
MARGIN = 1.2
# What each answer of a step keeps, at least, of the speed that it would have without drafts.
KEPT_SPEED = 0.8


def may_gain(n_base: int, step_s: Callable[[int], float], n_most: int) -> bool:
    """Whether drafts that are always right would be worth computing with the `n_base` tokens of a step."""
    least = MARGIN * n_base / step_s(n_base)
    sizes = {min(n_most, 1 << power) for power in range(n_most.bit_length() + 1)}
    return any((n_base + n) / step_s(n_base + n) > least for n in sizes)


def choose_lengths(
    chances: Sequence[Sequence[float]],
    n_base: int,
    step_s: Callable[[int], float],
    *,
    n_most: int,
    limit_s: float,
) -> list[int]:
    """How many drafted tokens of each answer are computed together with the `n_base` tokens of a step.

    `chances[i][j]` is how likely answer i takes its first j + 1 drafted tokens: the tokens that the last of
    them is worth. `step_s(n)` is the time of a step of n tokens. The lengths chosen give the most tokens per
    second, of all answers together; of equal ones the shortest. At most `n_most` tokens are added, and
    `limit_s` seconds. No answer gets slower than `KEPT_SPEED`, and nothing is drafted where it gains less
    than `MARGIN`.
    """
    lengths = [0] * len(chances)
    order = sorted(
        ((chance, -j, i) for i, row in enumerate(chances) for j, chance in enumerate(row)),
        reverse=True,
    )
    if not order or n_most < 1:
        return lengths
    alone_s = step_s(n_base)
    n_answers = len(chances)
    expected = [1.0] * n_answers  # tokens of each answer
    best, best_n = MARGIN * n_answers / alone_s, 0
    total = float(n_answers)
    for n, (chance, _, i) in enumerate(order[:n_most], 1):
        total += chance
        expected[i] += chance
        took_s = step_s(n_base + n)
        if total / took_s <= best or took_s - alone_s > limit_s:
            continue
        if min(expected) * alone_s >= KEPT_SPEED * took_s:
            best, best_n = total / took_s, n
    for _, _, i in order[:best_n]:
        lengths[i] += 1
    return lengths
