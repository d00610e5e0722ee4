"""Mixed precision: the types of all tensors for a given size, by measured sensitivity.

The sum of single costs is only nearly the divergence of a whole allocation. So the groups that weigh most in
it are measured again, each one step finer within the allocation; their costs are scaled to what was measured,
and the bytes are allocated anew. An allocation counts only if its own measured divergence is lower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeagent.optimize.allocation import Allocation, Option, allocate, hull
from edgeagent.optimize.client import ScoringClient
from edgeagent.optimize.evaluate import Reference, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.sensitivity import TensorCosts, TensorGroup, mean_divergence

# Groups that are measured again in one round of refinement.
REFINED_GROUPS = 24


@dataclass(frozen=True)
class MixedPrecision:
    """An allocation, and its divergence on the tuning text with rounded weights in memory."""

    allocation: Allocation
    kld: float


async def best_allocation(
    client: ScoringClient,
    reference: Reference,
    groups: Sequence[TensorGroup],
    costs: Sequence[TensorCosts],
    max_bytes: int,
    journal: Journal,
    *,
    n_rounds: int = 1,
    tell: Tell = lambda what, n, total: None,
) -> MixedPrecision | None:
    """The best allocation found within `max_bytes` of quantized tensors; None where none fits."""
    options: dict[str, Sequence[Option]] = {one.name: one.options for one in costs}
    first = allocate(options, max_bytes)
    if first is None:
        return None
    best = MixedPrecision(first, await _measured(client, reference, first.kinds, journal))
    for _ in range(n_rounds):
        options = await _refined(client, reference, groups, options, best, journal, tell)
        again = allocate(options, max_bytes)
        if again is None or again.kinds == best.allocation.kinds:
            break
        found = MixedPrecision(again, await _measured(client, reference, again.kinds, journal))
        if found.kld >= best.kld:
            break
        best = found
    await client.alter({})
    return best


async def _measured(
    client: ScoringClient, reference: Reference, kinds: Mapping[str, str], journal: Journal
) -> float:
    text = "\n".join(f"{name}={kind}" for name, kind in sorted(kinds.items()))
    key = f"allocation {hashlib.sha256(text.encode()).hexdigest()}"
    values = journal.get(key)
    if values is None:
        await client.alter(kinds)
        values = {"kld": await mean_divergence(client, reference)}
        journal.add(key, values)
    return values["kld"]


async def _refined(
    client: ScoringClient,
    reference: Reference,
    groups: Sequence[TensorGroup],
    options: Mapping[str, Sequence[Option]],
    best: MixedPrecision,
    journal: Journal,
    tell: Tell,
) -> dict[str, Sequence[Option]]:
    """The options with the costs of the weightiest groups scaled to what they cost in this allocation."""
    kinds = best.allocation.kinds
    found = dict(options)

    def weight(group: TensorGroup) -> float:
        return sum(_cost(options[name], kinds[name]) for name in group.tensors)

    chosen = sorted(groups, key=lambda g: (-weight(g), g.name))[:REFINED_GROUPS]
    for group in chosen:
        finer = {
            name: step for name in group.tensors if (step := _finer(options[name], kinds[name]))
        }
        expected = sum(_cost(options[n], kinds[n]) - _cost(options[n], k) for n, k in finer.items())
        tell("refinement", 1, len(chosen))
        if expected <= 0:
            continue
        saved = best.kld - await _measured(client, reference, {**kinds, **finer}, journal)
        # A group whose gain is lost in noise keeps a tenth of its cost: it is not free.
        scale = max(0.1, saved / expected)
        for name in group.tensors:
            found[name] = [replace(o, cost=scale * o.cost) for o in options[name]]
    return found


def _cost(options: Sequence[Option], kind: str) -> float:
    return next(option.cost for option in options if option.kind == kind)


def _finer(options: Sequence[Option], kind: str) -> str | None:
    """The next type up the hull."""
    n_bytes = next(option.n_bytes for option in options if option.kind == kind)
    return next((o.kind for o in hull(options) if o.n_bytes > n_bytes), None)
