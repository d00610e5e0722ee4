"""What a step costs: measured once for a model on a device, and corrected by every step that runs.

A step of n tokens costs what a grid of measured sizes says, by interpolation between two, and a little for
each cell that its tokens attend to. Beside prompts that are computed on threads of their own, it has one
thread, and with two of them on two cores two thirds of one.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from edgeagent.engine.batching.attention_tiles import n_tile_rows
from edgeagent.engine.batching.cost_curve import CostCurve
from edgeagent.types.step_costs import LEAST_APART, TILE, StepCosts

# Of chunks whose prices differ by less, the largest is taken: prices are not known better.
TIE = 1.03
# A step may take STRETCH times its bound where a token then costs less than WORTH of what it costs within.
STRETCH = 2.0
WORTH = 0.8
# Passing a cell that a token does not attend to, over attending to it: 0.12 us against 2.3 (SmolLM2-135M, two
# threads of a Zen 4).
MASKED = 0.05
# Of so many steps beside others the median says how much longer they take than by their part of the cores.
N_CROWD = 9
# What one thread reaches of its part of all threads, where nothing was measured.
ALONE = 0.9


class StepLoad(NamedTuple):
    """What a step computes: one token for each of `n_decode` sequences, which hold `decode_cells` together,
    and `n_prefill` tokens of prompts, each of which attends to `prompt_depth` cells on average.

    `n_used` cells of all sequences are in the cache. With `n_threads` threads, 0: all; `n_beside` further
    ones compute prompts of their own meanwhile.
    """

    n_decode: int
    n_prefill: int
    decode_cells: float = 0.0
    prompt_depth: float = 0.0
    n_used: int = 0
    n_threads: int = 0
    n_beside: int = 0

    @property
    def n_tokens(self) -> int:
        return self.n_decode + self.n_prefill

    @property
    def n_visits(self) -> float:
        """How often a token attends to a cell."""
        return self.decode_cells + self.n_prefill * self.prompt_depth

    @property
    def n_masked(self) -> float:
        """How often a token passes a cell that it does not attend to."""
        return max(0.0, self.n_tokens * self.n_used - self.n_visits)


class StepCost:
    """The costs of one model. Engine thread only.

    `can_part`: prompts are computed apart from answers of the same step where that takes less time.
    """

    def __init__(self, measured: StepCosts, *, can_part: bool = False) -> None:
        self._can_part = can_part
        self._n_threads = measured.n_threads or 1
        self._n_heads = measured.n_heads
        self._cell_s, self._tiled_cell_s = measured.cell_s, measured.tiled_cell_s
        self._curve = CostCurve(self._without_attention(measured.step_s, self._n_threads))
        alone_s = measured.alone_s or {
            n: ALONE * self._n_threads * seconds for n, seconds in measured.step_s.items()
        }
        self._crowds: dict[tuple[bool, int] | None, deque[float]] = {}
        self._alone = self._curve
        if self._n_threads > 1:
            self._alone = CostCurve(self._without_attention(alone_s, 1))

    @property
    def sizes(self) -> list[int]:
        """The measured numbers of tokens, ascending."""
        return self._curve.sizes

    def predict(self, load: StepLoad) -> float:
        """Seconds of a step."""
        together_s = self._predict_together(load)
        if not self._is_parted(load):
            return together_s
        return min(together_s, sum(map(self._predict_together, _parts(load))))

    def undisturbed(self, load: StepLoad) -> float:
        """Seconds of a step of answers alone, as it was measured or as later ones took, whichever is less:
        either may have been beside other programs."""
        return min(self._predict_together(load), self._predict_together(load, is_corrected=False))

    def observe(self, load: StepLoad, took_s: float) -> None:
        """A step took this long."""
        if self._is_parted(load):
            answers, prompts = _parts(load)
            answers_s = self._predict_together(answers)
            if answers_s + self._predict_together(prompts) < self._predict_together(load):
                self._learn(prompts, max(took_s - answers_s, took_s / 4))
                return
        self._learn(load, took_s)

    def _is_parted(self, load: StepLoad) -> bool:
        return self._can_part and load.n_decode > 0 and load.n_prefill >= LEAST_APART

    def _predict_together(self, load: StepLoad, *, is_corrected: bool = True) -> float:
        n_threads = self._threads_of(load)
        curve = self._alone if n_threads == 1 else self._curve
        attention_s = self._attention_s(load, n_threads)
        seconds = curve.seconds(
            load.n_tokens,
            attention_s,
            has_prompts=load.n_prefill > 0,
            is_corrected=is_corrected,
        )
        seconds *= self._slowdown(load, n_threads)
        crowd = self._crowds.get(_crowd_of(load))
        return seconds * statistics.median(crowd) if crowd else seconds

    def _learn(self, load: StepLoad, took_s: float) -> None:
        key = _crowd_of(load)
        ratio = took_s / self._predict_together(load)
        has_cores = self._slowdown(load, self._threads_of(load)) == 1.0
        if key is None or (has_cores and not load.n_prefill):
            curve = self._alone if self._threads_of(load) == 1 else self._curve
            curve.learn(load.n_tokens, ratio, has_prompts=load.n_prefill > 0)
            return
        crowd = self._crowds.setdefault(key, deque(maxlen=N_CROWD))
        crowd.append(ratio * (statistics.median(crowd) if crowd else 1.0))

    def _threads_of(self, load: StepLoad) -> int:
        return min(load.n_threads or self._n_threads, self._n_threads)

    def _slowdown(self, load: StepLoad, n_threads: int) -> float:
        """Of a step that has fewer threads than were measured, or less than a core for each."""
        shared = max(1.0, (n_threads + load.n_beside) / self._n_threads)
        fewer = 1.0 if n_threads == 1 else self._n_threads / n_threads
        return shared * fewer

    def _attention_s(self, load: StepLoad, n_threads: int) -> float:
        masked_s = MASKED * self._cell_s * load.n_masked
        if load.n_tokens < TILE:
            attended_s = self._cell_s * load.n_visits
        else:  # a tile meets the cells of all sequences in it with all of its rows
            n_rows = n_tile_rows(load.n_tokens, self._n_heads, n_threads)
            n_visits = TILE * load.decode_cells + n_rows * load.prompt_depth
            attended_s = self._tiled_cell_s * n_visits
        return (attended_s + masked_s) * (self._n_threads if n_threads == 1 else 1)

    def _without_attention(self, step_s: dict[int, float], n_threads: int) -> dict[int, float]:
        """What the measured steps took beside the attention to their own cells."""
        return {
            n: max(seconds / 2, seconds - self._attention_s(StepLoad(0, n, 0.0, n / 2), n_threads))
            for n, seconds in step_s.items()
        }


def _crowd_of(load: StepLoad) -> tuple[bool, int] | None:
    """What a step has in common with others that threads of their own disturb: how many there are, which
    changes while a chunk is computed, and what they leave of the cores."""
    return (load.n_prefill > 0, load.n_beside) if load.n_beside else None


def _parts(load: StepLoad) -> tuple[StepLoad, StepLoad]:
    """The answers and the prompts of a step; the prompts meet their own cells only."""
    return (
        load._replace(n_prefill=0, prompt_depth=0.0),
        load._replace(n_decode=0, decode_cells=0.0, n_used=0),
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
