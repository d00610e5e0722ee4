"""Mixed precision: the types of all tensors for a given size, by measured sensitivity.

An allocation counts by its own measured divergence, on the tuning text with rounded weights in memory:

1. Several are measured to begin with: that of the single costs, and uniform mixtures of llama.cpp that fit,
   with the importance matrix and without it. So the result is never worse than these mixtures.
2. The sum of single costs is only nearly the divergence of a whole allocation. So the groups that weigh most
   in the best one are measured again, each one step finer within the allocation; their costs are scaled to
   what was measured, and the bytes are allocated anew, until that is no better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeagent.optimize.allocation import Allocation, Budget, Option, allocate_within, hull
from edgeagent.optimize.client import ScoringClient
from edgeagent.optimize.evaluate import Reference, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.sensitivity import TensorCosts, TensorGroup, mean_divergence

# Groups that are measured again in one round of refinement.
REFINED_GROUPS = 24
MOST_ROUNDS = 2
# Mixtures of llama.cpp that are tried as beginnings.
MOST_MIXTURES = 2


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
    budget: Budget,
    journal: Journal,
    *,
    mixtures: Sequence[Mapping[str, str]] = (),
    n_rounds: int = MOST_ROUNDS,
    tell: Tell = lambda what, n, total: None,
) -> MixedPrecision | None:
    """The best allocation of quantized tensors found within `budget`; None where none fits.

    `mixtures`: the types of all tensors in uniform mixtures, which are tried as well where they fit.
    """
    options: dict[str, Sequence[Option]] = {one.name: one.options for one in costs}
    first = allocate_within(options, budget)
    if first is None:
        return None
    seeds = [first, *seeds_of(mixtures, options, budget)]
    found = []
    for seed in seeds:
        found.append(MixedPrecision(seed, await _measured(client, reference, seed, journal)))
        tell("beginnings", 1, len(seeds))
    best = min(found, key=lambda one: one.kld)
    for _ in range(n_rounds):
        options = await _refined(client, reference, groups, options, best, journal, tell)
        again = allocate_within(options, budget)
        if again is None or _key(again) == _key(best.allocation):
            break
        one = MixedPrecision(again, await _measured(client, reference, again, journal))
        if one.kld >= best.kld:
            break
        best = one
    await client.alter({})
    return best


def seeds_of(
    mixtures: Sequence[Mapping[str, str]], options: Mapping[str, Sequence[Option]], budget: Budget
) -> list[Allocation]:
    """The mixtures that fit, largest first, each with the importance matrix and without it."""
    found: dict[tuple[tuple[str, str], ...], list[Allocation]] = {}
    for types in mixtures:
        both = []
        for is_plain in (False, True):
            chosen = {
                name: option
                for name, given in options.items()
                for option in given
                if (option.kind, option.is_plain) == (types.get(name), is_plain)
            }
            if len(chosen) == len(options):
                both.append(Allocation(chosen))
        if both and budget.overshoot(both[0]) <= 1:
            found[tuple(sorted(both[0].kinds.items()))] = both
    largest = sorted(found.items(), key=lambda item: (-item[1][0].n_bytes, item[0]))
    return [one for _, both in largest[:MOST_MIXTURES] for one in both]


async def _measured(
    client: ScoringClient, reference: Reference, allocation: Allocation, journal: Journal
) -> float:
    key = _key(allocation)
    values = journal.get(key, "kld")
    if values is None:
        await client.alter(allocation.kinds, plain=allocation.plain)
        values = {"kld": await mean_divergence(client, reference)}
        journal.add(key, values)
    return values["kld"]


def _key(allocation: Allocation) -> str:
    """A digest of the types, under which the journal has the measurement."""
    text = "\n".join(
        f"{name}={option.kind}{' plain' if option.is_plain else ''}"
        for name, option in sorted(allocation.chosen.items())
    )
    return f"allocation {hashlib.sha256(text.encode()).hexdigest()}"


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
    chosen = best.allocation.chosen
    found = dict(options)

    def weight(group: TensorGroup) -> float:
        return sum(_cost(options[name], chosen[name]) for name in group.tensors)

    weightiest = sorted(groups, key=lambda g: (-weight(g), g.name))[:REFINED_GROUPS]
    for group in weightiest:
        finer = {
            name: step for name in group.tensors if (step := _finer(options[name], chosen[name]))
        }
        expected = sum(_cost(options[n], chosen[n]) - step.cost for n, step in finer.items())
        tell("refinement", 1, len(weightiest))
        if expected <= 0:
            continue
        altered = Allocation({**chosen, **finer})
        saved = best.kld - await _measured(client, reference, altered, journal)
        # A group whose gain is lost in noise keeps a tenth of its cost: it is not free.
        scale = max(0.1, saved / expected)
        for name in group.tensors:
            found[name] = [replace(o, cost=scale * o.cost) for o in options[name]]
    return found


def _cost(options: Sequence[Option], wanted: Option) -> float:
    """What an option costs by now: costs are scaled from round to round."""
    return next(o.cost for o in options if (o.kind, o.is_plain) == (wanted.kind, wanted.is_plain))


def _finer(options: Sequence[Option], than: Option) -> Option | None:
    """The next type up the hull."""
    return next((o for o in hull(options) if o.n_bytes > than.n_bytes), None)
