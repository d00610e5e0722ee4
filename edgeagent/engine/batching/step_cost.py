"""What a step costs: measured once for a model on a device, and corrected by every step that runs.

A step of n tokens costs what a grid of measured sizes says, by interpolation between two, and a little for
each cell that its tokens attend to. The curve is not smooth: llama.cpp computes attention in another way
from `TILE` tokens on, and no interpolation crosses that.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from edgeagent.types.step_costs import LEAST_APART, TILE, StepCosts

# How far one step moves what is expected of steps of its size, and of all steps with prompts: a device
# that heats up is noticed within a few steps, one slow step does not halve the chunk.
LOCAL_WEIGHT = 0.1
COMMON_WEIGHT = 0.15
# A step that takes longer than this many times what was expected says as much as one at the bound.
LARGEST_ERROR = 4.0
# Of chunks whose prices differ by less, the largest is taken: prices are not known better.
TIE = 1.03
# A step may take STRETCH times its bound where a token then costs less than WORTH of what it costs within.
STRETCH = 2.0
WORTH = 0.8


class StepLoad(NamedTuple):
    """What a step computes: one token for each of `n_decode` sequences, which hold `decode_cells` together,
    and `n_prefill` tokens of prompts, each of which attends to `prompt_depth` cells on average."""

    n_decode: int
    n_prefill: int
    decode_cells: float = 0.0
    prompt_depth: float = 0.0

    @property
    def n_tokens(self) -> int:
        return self.n_decode + self.n_prefill

    @property
    def n_visits(self) -> float:
        """How often a token meets a cell."""
        return self.decode_cells + self.n_prefill * self.prompt_depth

    @property
    def n_tiled_visits(self) -> float:
        """The same in tiles: a tile meets the cells of all sequences in it with all of its tokens."""
        return TILE * self.decode_cells + max(TILE, self.n_prefill) * self.prompt_depth


class StepCost:
    """The cost curve of one model. Engine thread only.

    `can_part`: prompts are computed apart from answers of the same step where that takes less time.
    """

    def __init__(self, measured: StepCosts, *, can_part: bool = False) -> None:
        self._can_part = can_part
        self._sizes = sorted(measured.step_s)
        self._base = [measured.step_s[n] for n in self._sizes]
        self._cell_s, self._tiled_cell_s = measured.cell_s, measured.tiled_cell_s
        self._local = [0.0] * len(self._sizes)  # logarithms of factors
        self._common = 0.0

    @property
    def sizes(self) -> list[int]:
        """The measured numbers of tokens, ascending."""
        return self._sizes

    def predict(self, load: StepLoad) -> float:
        """Seconds of a step."""
        together_s = self._predict_together(load)
        if not self._is_parted(load):
            return together_s
        return min(together_s, sum(map(self._predict_together, _parts(load))))

    def _is_parted(self, load: StepLoad) -> bool:
        return self._can_part and load.n_decode > 0 and load.n_prefill >= LEAST_APART

    def _predict_together(self, load: StepLoad) -> float:
        n = load.n_tokens
        low, high, share = self._place(n)
        factor = (1 - share) * self._local[low] + share * self._local[high]
        if load.n_prefill:
            factor += self._common
        base = (1 - share) * self._base[low] + share * self._base[high]
        if low == high:
            base *= n / self._sizes[low]
        is_tiled = n >= TILE
        attention_s = (
            self._tiled_cell_s * load.n_tiled_visits if is_tiled else self._cell_s * load.n_visits
        )
        return (base + attention_s) * math.exp(factor)

    def observe(self, load: StepLoad, took_s: float) -> None:
        """A step took this long."""
        if self._is_parted(load):
            answers, prompts = _parts(load)
            answers_s = self._predict_together(answers)
            if answers_s + self._predict_together(prompts) < self._predict_together(load):
                self._learn(prompts, max(took_s - answers_s, took_s / 4))
                return
        self._learn(load, took_s)

    def _learn(self, load: StepLoad, took_s: float) -> None:
        bound = math.log(LARGEST_ERROR)
        error = math.log(max(took_s, 1e-6) / self._predict_together(load))
        error = max(-bound, min(bound, error))
        low, high, share = self._place(load.n_tokens)
        self._local[low] += LOCAL_WEIGHT * (1 - share) * error
        if high != low:
            self._local[high] += LOCAL_WEIGHT * share * error
        if load.n_prefill:
            self._common += COMMON_WEIGHT * error

    def _place(self, n_tokens: int) -> tuple[int, int, float]:
        """The measured sizes around this one, and how far it is on the way from the first to the second.

        One size twice: the next one lies beyond the end of the curve, or where it computes in another way.
        """
        high = bisect_left(self._sizes, n_tokens)
        if high == len(self._sizes):
            return high - 1, high - 1, 0.0
        if high == 0 or self._sizes[high] == n_tokens:
            return high, high, 0.0
        low = high - 1
        if self._sizes[low] < TILE <= self._sizes[high]:  # another way of computing
            near = low if n_tokens < TILE else high
            return near, near, 0.0
        return low, high, (n_tokens - self._sizes[low]) / (self._sizes[high] - self._sizes[low])


def _parts(load: StepLoad) -> tuple[StepLoad, StepLoad]:
    """The answers and the prompts of a step."""
    return (
        load._replace(n_prefill=0, prompt_depth=0.0),
        load._replace(n_decode=0, decode_cells=0.0),
    )


def pick_chunk(
    cost: Callable[[int], float],
    sizes: list[int],
    n_pending: int,
    room: int,
    bound_s: float,
    least: int,
) -> int:
    """How many of the pending prompt tokens the next step takes: `least` at least, if there are as many.

    `cost` gives the seconds of a step by its number of prompt tokens, which has `room` for so many; `sizes`
    are numbers of prompt tokens whose cost is known best. A chunk costs what it adds to a step of the
    decoding sequences. The step takes `bound_s` at most, and up to STRETCH times as long where its tokens
    cost much less then. Where two steps can take all that is pending, they cost the least together;
    otherwise a token of the chunk costs the least. So a chunk lies on the good side of a place where the
    curve falls, and leaves no rest on the bad one.
    """
    room = min(n_pending, room)
    if room <= least:
        return max(0, room)
    alone_s = cost(0)
    chunks = {*sizes, *(n_pending - n for n in sizes), least, room}
    added_s = {n: max(cost(n) - alone_s, 1e-9) for n in chunks if least <= n <= room}

    def cheapest(limit_s: float) -> tuple[int, float]:
        """The best chunk of a step that takes no longer, and what a token costs with it."""
        able = [n for n in added_s if added_s[n] + alone_s <= limit_s] or [least]
        most = max(able)
        if n_pending <= 2 * most:
            prices = {n: _price_of_all(n) for n in able if n_pending - n <= most}
        else:
            prices = {n: added_s[n] / n for n in able}
        lowest = min(prices.values())
        return max(n for n in prices if prices[n] <= TIE * lowest), lowest

    def _price_of_all(n: int) -> float:
        rest = n_pending - n
        return (added_s[n] + (max(cost(rest) - alone_s, 0.0) if rest else 0.0)) / n_pending

    within, price = cheapest(bound_s)
    beyond, lower = cheapest(STRETCH * bound_s)
    return beyond if lower < WORTH * price else within
