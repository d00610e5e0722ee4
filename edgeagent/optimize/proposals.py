"""What a search proposes to measure: mixtures of llama.cpp, and mixed precision within the targets' budgets.

Sizes are exact before anything is made. Where no file is within the bound on size, nothing is probed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from edgeagent.catalog.gguf.header import Header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.allocation import Allocation, Budget
from edgeagent.optimize.candidates import Candidate
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import Tell, reference_of
from edgeagent.optimize.imatrix import collect, open_config
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import best_allocation
from edgeagent.optimize.quantize import check_space, planned, predicted_bytes, tensor_bytes
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.search_options import SearchOptions
from edgeagent.optimize.sensitivity import (
    TensorCosts,
    groups_of,
    kinds_for,
    measure_costs,
    quantizable,
)
from edgeagent.optimize.spare_bytes import with_spare_bytes
from edgeagent.optimize.targets import Targets
from edgeagent.optimize.texts import chunks_of
from edgeagent.optimize.type_speeds import TypeSpeeds

# Mixed candidates below the largest size that is allowed.
SHARES_OF_BOUND = (1.0, 0.92, 0.84)
# Of the time of a token: what is timed later may be this much slower than what the types were.
SPARE = 0.95
Speeds = Callable[[set[str]], Awaitable[TypeSpeeds]]


async def propose(
    reference: Path, header: Header, work: Path, options: SearchOptions, journal: Journal, speeds: Speeds,
    tell: Tell,
) -> tuple[list[Candidate], Path | None, dict[str, int]]:  # fmt: skip
    """What is worth measuring, the importance matrix, and how many tensors lie on the grid of each type.
    Without a matrix where no file is within the bound on size: nothing is worth probing then."""
    bound = options.targets.max_bytes
    uniform = uniform_candidates(reference, header, None, options.mixtures)
    if bound is not None and bound < smallest_bytes(reference, header, uniform):
        return promising(uniform, options.targets), None, {}
    check_space(work, max(one.n_bytes for one in promising(uniform, options.targets)))
    importance = work / "imatrix.gguf"
    await collect(
        reference, options.calibration, importance, n_ctx=options.n_ctx,
        max_chunks=options.calibration_chunks, n_threads=options.n_threads, special=options.special,
        also_checked=options.held_out, tell=tell,
    )  # fmt: skip
    uniform = uniform_candidates(reference, header, importance, options.mixtures)
    mixed, costs = await _mixed(
        reference, header, importance, uniform, options, journal, speeds, tell
    )
    return promising([*mixed, *uniform], options.targets), importance, _on_grid(costs)


def kinds_of(wanted: Sequence[Candidate], header: Header) -> set[str]:
    """The types that matrices have in some candidates."""
    able = quantizable(header)
    return {one.types[name] for one in wanted for name in able}


def uniform_candidates(
    reference: Path, header: Header, importance: Path | None, mixtures: Sequence[str]
) -> list[Candidate]:
    """One for each mixture that gives a file of its own. Raises: InvalidParameter for an unknown one."""
    found: dict[tuple[str, ...], Candidate] = {}
    recipes = [Recipe(file_type) for file_type in mixtures]
    for recipe in recipes:
        recipe.check()
    for recipe, types in zip(recipes, planned(reference, recipes, importance), strict=True):
        key = tuple(sorted(f"{name} {kind}" for name, kind in types.items()))
        size = predicted_bytes(header, types)
        found.setdefault(key, Candidate(recipe.file_type, recipe, size, types))
    return list(found.values())


async def _mixed(
    reference: Path, header: Header, importance: Path, uniform: Sequence[Candidate], options: SearchOptions,
    journal: Journal, speeds: Speeds, tell: Tell,
) -> tuple[list[Candidate], list[TensorCosts]]:  # fmt: skip
    """Mixed precision within the budgets that the targets ask for."""
    fixed = fixed_bytes(reference, header)
    is_bounded = options.targets.min_decode_tok_s is not None
    if not (is_bounded or mixed_budgets(options.targets, uniform, fixed, None)):
        return [], []
    sizes = {tensor.name: tensor.n_elements for tensor in header.tensors}
    groups = groups_of(header, options.layers_together)
    columns = {name: c.tobytes() for name, c in read_imatrix(importance).columns().items()}
    found: dict[int, Candidate] = {}
    async with scoring_worker(open_config(reference, options.n_ctx, options.n_threads)) as client:
        await client.set_importance(columns)
        # Behind the chunks that the importance matrix was made of.
        chunks = await chunks_of(
            client, options.calibration, options.n_ctx, None, special=options.special
        )
        chunks = chunks[options.calibration_chunks :][: options.tuning_chunks]
        if not chunks:
            raise InvalidParameter(
                f"The calibration texts have no more than {options.calibration_chunks} chunks of "
                f"{options.n_ctx} tokens, and tuning needs some of its own: take a longer text, or lower "
                "--calibration-chunks."
            )
        tuning = await reference_of(client, chunks)
        costs = await measure_costs(client, header, tuning, groups, journal, tell)
        kinds = {option.kind for one in costs for option in one.options}
        timed = await speeds(kinds) if options.targets.min_decode_tok_s is not None else None
        for budget in mixed_budgets(options.targets, uniform, fixed, timed):
            best = await best_allocation(
                client, tuning, groups, costs, budget, journal,
                mixtures=[one.types for one in uniform], tell=tell,
            )  # fmt: skip
            if best is None:
                continue
            filled = None
            if budget.max_bytes is not None and budget.max_s is None:
                filled = with_spare_bytes(best.allocation, costs, sizes, budget.max_bytes)
            for one in filter(None, (best.allocation, filled)):
                found[fixed + one.n_bytes] = mixed_candidate(one, fixed, found.values())
    return list(found.values()), costs


def mixed_candidate(allocation: Allocation, fixed: int, others: Iterable[Candidate]) -> Candidate:
    """The file of an allocation and `fixed` bytes; it has the name of no file of another size."""
    n_bytes = fixed + allocation.n_bytes
    name = f"mixed-{n_bytes / 1e6:.4g}MB"
    if name in {one.name for one in others if one.n_bytes != n_bytes}:
        name = f"mixed-{n_bytes}B"
    kinds = allocation.kinds
    return Candidate(name, Recipe("Q8_0", kinds, plain=allocation.plain), n_bytes, kinds)


def fixed_bytes(reference: Path, header: Header) -> int:
    """What a mixed file has beside the tensors that are allocated: its header, norms, odd shapes."""
    able = quantizable(header)
    recipe = Recipe("Q8_0", dict.fromkeys(able, "Q8_0"))
    (types,) = planned(reference, [recipe])
    shapes = {tensor.name: tensor.n_elements for tensor in header.tensors}
    return predicted_bytes(header, types) - sum(tensor_bytes(shapes[n], "Q8_0") for n in able)


def smallest_bytes(reference: Path, header: Header, uniform: Sequence[Candidate]) -> int:
    """The size of the smallest file that a search can make."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    mixed = fixed_bytes(reference, header) + sum(
        min(
            tensor_bytes(tensors[name].n_elements, kind)
            for kind in kinds_for(tensors[name].shape[0])
        )
        for name in quantizable(header)
    )
    return min(mixed, *(one.n_bytes for one in uniform))


def mixed_budgets(
    targets: Targets, uniform: Sequence[Candidate], fixed: int, speeds: TypeSpeeds | None
) -> list[Budget]:
    """The budgets at which mixed precision is worth a try: those of the bounds, or the sizes of three
    mixtures. `fixed`: bytes of a file beside its matrices. `speeds` where the decode rate is bounded."""
    size, rate = targets.max_bytes, targets.min_decode_tok_s
    if rate is not None and speeds is not None:
        return [
            Budget(
                None if size is None else int(share * size) - fixed, SPARE * share / rate, speeds.token_s,
                speeds.shares,
            )
            for share in SHARES_OF_BOUND
        ]  # fmt: skip
    if size is not None:
        return [Budget(int(share * size) - fixed) for share in SHARES_OF_BOUND]
    wanted = ("Q5_K_M", "Q4_K_M", "Q4_0")
    return [Budget(one.n_bytes - fixed) for name in wanted for one in uniform if one.name == name]


def promising(candidates: Sequence[Candidate], targets: Targets) -> list[Candidate]:
    """Those that meet the bound on size, largest first. The finest one of all comes first, too: it shows what
    quality is in reach. Where none meets the bound, the smallest shows how far off it is."""
    ordered = sorted(candidates, key=lambda one: (-one.n_bytes, one.name))
    within = [
        one for one in ordered if targets.max_bytes is None or one.n_bytes <= targets.max_bytes
    ]
    return list(dict.fromkeys([ordered[0], *(within or ordered[-1:])]))


def _on_grid(costs: Sequence[TensorCosts]) -> dict[str, int]:
    counts = Counter(one.grid for one in costs if one.grid is not None)
    return dict(sorted(counts.items()))
