"""Which type each tensor gets, under bounds on bytes and on the time of a token: pure arithmetic.

Every tensor has options (type, bytes, cost); the sum of costs is to be least. Only options on the lower
convex hull of a tensor are worth their bytes for some bound, so the steps from one to the next are taken in
the order of cost saved per byte, which is the solution of the Lagrangian relaxation. What is left of the
bound goes to the best single exchanges that still fit. Under two bounds, the weight of an option is a mean of
its shares of both, for some ways of counting them.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

# How much time counts beside bytes, where both are bounded, and how fine their sum is.
_TIME_COUNTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_UNIT = 10**12
_MAX_TRIES = 12


@dataclass(frozen=True)
class Option:
    """One type of a tensor: the bytes it takes, and what it costs in quality. `is_plain`: rounded without the
    importance matrix."""

    kind: str
    n_bytes: int
    cost: float
    is_plain: bool = False


@dataclass(frozen=True)
class Allocation:
    """What each tensor gets."""

    chosen: dict[str, Option]

    @property
    def kinds(self) -> dict[str, str]:
        return {name: option.kind for name, option in self.chosen.items()}

    @property
    def plain(self) -> tuple[str, ...]:
        """The tensors that are rounded without the importance matrix."""
        return tuple(sorted(name for name, option in self.chosen.items() if option.is_plain))

    @property
    def n_bytes(self) -> int:
        return sum(option.n_bytes for option in self.chosen.values())

    @property
    def cost(self) -> float:
        return sum(option.cost for option in self.chosen.values())


@dataclass(frozen=True)
class Budget:
    """Bounds on all tensors together; None does not bound. `token_s`: seconds of a token if all tensors had
    a type; each tensor takes its share of them (`shares`)."""

    max_bytes: int | None = None
    max_s: float | None = None
    token_s: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, chosen: Mapping[str, Option]) -> float:
        return sum(self._seconds(name, option) for name, option in chosen.items())

    def overshoot(self, allocation: Allocation) -> float:
        """The larger of the shares of the bounds that an allocation takes; at most 1 if it fits."""
        of_bytes = 0.0 if self.max_bytes is None else allocation.n_bytes / self.max_bytes
        of_s = 0.0 if self.max_s is None else self.seconds(allocation.chosen) / self.max_s
        return max(of_bytes, of_s)

    def weight(self, name: str, option: Option, time_counts: float) -> int:
        """The share of the bounds that an option takes, in units of 1e-12."""
        of_bytes = option.n_bytes / self.max_bytes if self.max_bytes else 0.0
        of_s = self._seconds(name, option) / self.max_s if self.max_s else 0.0
        return max(1, round(_UNIT * ((1 - time_counts) * of_bytes + time_counts * of_s)))

    def _seconds(self, name: str, option: Option) -> float:
        return self.shares.get(name, 0.0) * self.token_s.get(option.kind, math.inf)


def allocate_within(tensors: Mapping[str, Sequence[Option]], budget: Budget) -> Allocation | None:
    """The allocation of least cost within a budget; None where none was found."""
    if budget.max_bytes is not None and budget.max_bytes <= 0:
        return None
    if budget.max_s is None:
        return allocate(tensors, sys.maxsize if budget.max_bytes is None else budget.max_bytes)
    able = {
        name: [o for o in options if o.kind in budget.token_s] for name, options in tensors.items()
    }
    found = [
        one for time_counts in _TIME_COUNTS
        if (time_counts == 1 or budget.max_bytes is not None)
        and (one := _by_weight(able, budget, time_counts)) is not None
    ]  # fmt: skip
    return min(found, key=lambda one: (one.cost, one.n_bytes), default=None)


def _by_weight(
    tensors: Mapping[str, Sequence[Option]], budget: Budget, time_counts: float
) -> Allocation | None:
    """The best allocation for one way of counting time, with a bound lowered until both are kept."""
    weighted = {
        name: [replace(o, n_bytes=budget.weight(name, o, time_counts)) for o in options]
        for name, options in tensors.items()
    }
    of = {(n, o.kind, o.is_plain): o for n, options in tensors.items() for o in options}
    bound = 1.0
    for _ in range(_MAX_TRIES):
        light = allocate(weighted, int(bound * _UNIT))
        if light is None:
            return None
        found = Allocation({n: of[n, o.kind, o.is_plain] for n, o in light.chosen.items()})
        if (over := budget.overshoot(found)) <= 1:
            return found
        bound *= min(0.998, 1 / over)
    return None


def hull(options: Sequence[Option]) -> list[Option]:
    """The options of a tensor that are best for some price of a byte: fewest bytes first, cost falling."""
    ordered = sorted(options, key=lambda o: (o.n_bytes, o.cost, o.kind, o.is_plain))
    kept: list[Option] = []
    for option in ordered:
        if kept and option.cost >= kept[-1].cost:
            continue
        while len(kept) >= 2 and _gain(kept[-2], option) >= _gain(kept[-2], kept[-1]):
            kept.pop()
        if kept and kept[-1].n_bytes == option.n_bytes:
            kept.pop()
        kept.append(option)
    return kept


def allocate(tensors: Mapping[str, Sequence[Option]], max_bytes: int) -> Allocation | None:
    """The allocation of least cost within `max_bytes`; None where the smallest one is larger.

    Deterministic: ties go by the names of tensors and types.
    """
    hulls = {name: hull(options) for name, options in tensors.items()}
    at = dict.fromkeys(hulls, 0)
    left = max_bytes - sum(steps[0].n_bytes for steps in hulls.values())
    if left < 0:
        return None
    steps: list[tuple[float, str]] = []
    for name, options in hulls.items():
        _push(steps, name, options, 0)
    while steps:
        _, name = heapq.heappop(steps)
        options, i = hulls[name], at[name]
        extra = options[i + 1].n_bytes - options[i].n_bytes
        if extra <= left:
            left -= extra
            at[name] = i + 1
            _push(steps, name, options, i + 1)
    chosen = {name: hulls[name][i] for name, i in at.items()}
    _fill(chosen, tensors, left)
    return Allocation(chosen)


def _fill(chosen: dict[str, Option], tensors: Mapping[str, Sequence[Option]], left: int) -> None:
    """Exchange single options for better ones, best saving first, while bytes are left."""
    while True:
        best: tuple[float, str, Option] | None = None
        for name, options in tensors.items():
            for option in options:
                saved = chosen[name].cost - option.cost
                fits = option.n_bytes - chosen[name].n_bytes <= left
                if saved > 0 and fits and (best is None or (saved, name) > (best[0], best[1])):
                    best = (saved, name, option)
        if best is None:
            return
        _, name, option = best
        left -= option.n_bytes - chosen[name].n_bytes
        chosen[name] = option


def _gain(small: Option, large: Option) -> float:
    """Cost saved per byte."""
    return (small.cost - large.cost) / max(1, large.n_bytes - small.n_bytes)


def _push(steps: list[tuple[float, str]], name: str, options: Sequence[Option], i: int) -> None:
    if i + 1 < len(options):
        heapq.heappush(steps, (-_gain(options[i], options[i + 1]), name))
