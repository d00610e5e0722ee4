"""Which type each tensor gets, under a bound on bytes: pure arithmetic.

Every tensor has options (type, bytes, cost); the sum of costs is to be least. Only options on the lower
convex hull of a tensor are worth their bytes for some bound, so the steps from one to the next are taken in
the order of cost saved per byte, which is the solution of the Lagrangian relaxation. What is left of the
bound goes to the best single exchanges that still fit.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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
