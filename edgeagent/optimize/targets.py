"""What a search is asked for, and what its candidates say to that: pure decisions.

Targets       bounds on size, decode rate and divergence
pareto        the candidates that no other one beats in everything
choose        the candidate that meets all targets, the closest to the reference
with_best_flags   how the chosen file is loaded
blame         where none does: which target is out of reach, or which two exclude each other
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeagent.types.engine_flags import CacheFlags

# Flags replace those of the default where they are faster by this share, and the divergence grows by no
# more than this share of it and these nats.
LEAST_GAIN = 0.05
MORE_KLD, FREE_KLD = 0.1, 1e-4


@dataclass(frozen=True)
class Targets:
    """Bounds; None does not bound. `max_kld`: mean KL divergence to the reference, nats."""

    max_bytes: int | None = None
    min_decode_tok_s: float | None = None
    max_kld: float | None = None


@dataclass(frozen=True)
class Measured:
    """One candidate that was made and measured. `decode_tok_s` may be a prediction for another device.

    `others_cores`: 0 for a rate timed on a quiet machine, else what other programs used. `predicted_tok_s`:
    the rate that was expected on this device before it was timed. `flags`: where it was measured with
    another KV cache or flash attention than `base`, the same file as it is loaded by default.
    """

    name: str
    n_bytes: int
    kld: float
    same_top: float
    perplexity: float
    decode_tok_s: float
    others_cores: float = 0.0
    predicted_tok_s: float | None = None
    base: str = ""
    flags: CacheFlags | None = None

    @property
    def file(self) -> str:
        """The name of the file: that of the candidate without its flags."""
        return self.base or self.name


@dataclass(frozen=True)
class Bound:
    """One target in words: its option, its value, and by how much a candidate misses it (0: met)."""

    option: str
    told: str

    def miss(self, targets: Targets, one: Measured) -> float:
        """The ratio by which a candidate misses this target, as a logarithm; 0 where it meets it."""
        if self.option == "--max-size":
            return max(0.0, math.log(max(1, one.n_bytes) / (targets.max_bytes or 1)))
        if self.option == "--max-kld":
            return max(0.0, math.log(max(one.kld, 1e-12) / (targets.max_kld or 1e-12)))
        return max(0.0, math.log((targets.min_decode_tok_s or 1) / max(one.decode_tok_s, 1e-9)))


def bounds(targets: Targets) -> list[Bound]:
    """The targets that are given."""
    found = []
    if targets.max_bytes is not None:
        found.append(Bound("--max-size", f"{targets.max_bytes / 1e6:.1f} MB"))
    if targets.min_decode_tok_s is not None:
        found.append(Bound("--min-decode", f"{targets.min_decode_tok_s:g} tok/s"))
    if targets.max_kld is not None:
        found.append(Bound("--max-kld", f"{targets.max_kld:g}"))
    return found


def misses(targets: Targets, one: Measured) -> list[str]:
    """The options of the targets that a candidate misses."""
    return [bound.option for bound in bounds(targets) if bound.miss(targets, one) > 0]


def pareto(candidates: Sequence[Measured]) -> list[Measured]:
    """Those that no other candidate equals or beats in size, decode rate and divergence together."""

    def beats(a: Measured, b: Measured) -> bool:
        no_worse = a.n_bytes <= b.n_bytes and a.kld <= b.kld and a.decode_tok_s >= b.decode_tok_s
        return no_worse and (a.n_bytes, a.kld, a.decode_tok_s) != (b.n_bytes, b.kld, b.decode_tok_s)

    front = [one for one in candidates if not any(beats(other, one) for other in candidates)]
    return sorted(front, key=lambda one: (one.n_bytes, one.name))


def choose(targets: Targets, candidates: Sequence[Measured]) -> Measured | None:
    """The candidate of least divergence among those that meet all targets; None where none does."""
    able = [one for one in candidates if not misses(targets, one)]
    return min(able, key=lambda one: (one.kld, one.n_bytes, one.name), default=None)


def with_best_flags(targets: Targets, base: Measured, variants: Sequence[Measured]) -> Measured:
    """`base`, or the fastest of the same file with other flags: it meets the targets, loses little beside
    `base`, and is faster by more than noise. Rates that other programs disturbed decide nothing."""
    if base.others_cores:
        return base
    most_kld = base.kld * (1 + MORE_KLD) + FREE_KLD
    able = [
        one for one in variants
        if not misses(targets, one) and not one.others_cores and one.kld <= most_kld
        and one.decode_tok_s > base.decode_tok_s * (1 + LEAST_GAIN)
    ]  # fmt: skip
    return max(able, key=lambda one: (one.decode_tok_s, one.name), default=base)


def nearest(targets: Targets, candidates: Sequence[Measured], n: int = 3) -> list[Measured]:
    """The candidates that miss the targets least, by the sum of the ratios."""
    return sorted(
        candidates, key=lambda one: (sum(b.miss(targets, one) for b in bounds(targets)), one.name)
    )[:n]


def blame(targets: Targets, candidates: Sequence[Measured]) -> str:
    """Why no candidate meets all targets, in one sentence."""
    wanted = bounds(targets)
    for bound in wanted:
        if all(bound.miss(targets, one) > 0 for one in candidates):
            best = min(candidates, key=lambda one: (bound.miss(targets, one), one.name))
            return (
                f"{bound.option} {bound.told} is out of reach: the best candidate, {best.name}, has "
                f"{_value(bound, best)}."
            )
    for first in wanted:
        able = [one for one in candidates if first.miss(targets, one) == 0]
        for second in wanted:
            if second is not first and all(second.miss(targets, one) > 0 for one in able):
                best = min(able, key=lambda one: (second.miss(targets, one), one.name))
                return (
                    f"{first.option} {first.told} and {second.option} {second.told} exclude each other: "
                    f"within the first, the best is {best.name} with {_value(second, best)}."
                )
    return "Each two of the targets can be met, but not all of them together."


def _value(bound: Bound, one: Measured) -> str:
    if bound.option == "--max-size":
        return f"{one.n_bytes / 1e6:.1f} MB"
    if bound.option == "--max-kld":
        return f"a mean KL divergence of {one.kld:.4g}"
    return f"{one.decode_tok_s:.1f} tok/s"
