"""The search for a file that meets targets on size, speed and quality.

    1. reference    the F16 file; a quantized source is dequantized to one
    2. importance   the matrix over the calibration text
    3. sensitivity  what each tensor costs when only it is rounded
    4. candidates   uniform mixtures of llama.cpp, and mixed precision at the wanted sizes; exact sizes first
    5. measurement  each promising candidate is made and measured on the held-out text, then kept or removed
    6. choice       of least divergence among those that meet all targets
    7. flags        the same file with other KV types and flash attention, on this device

Every measurement is written to a journal, so that a search that is ended at any point goes on where it was,
and ends with the same file to the byte.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.allocation import Allocation, Budget
from edgeagent.optimize.candidates import (
    Bench,
    Candidate,
    Workers,
    loaded_otherwise,
    measured_candidates,
)
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.decode_rates import MAX_RUNS, TOLERANCE, DecodeRate, n_within
from edgeagent.optimize.evaluate import EvaluationOptions, Tell, reference_of
from edgeagent.optimize.imatrix import collect, open_config
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import best_allocation
from edgeagent.optimize.quantize import (
    check_source,
    check_space,
    planned,
    predicted_bytes,
    quantize,
    tensor_bytes,
)
from edgeagent.optimize.recipe import Recipe, write_recipe
from edgeagent.optimize.sensitivity import (
    TensorCosts,
    groups_of,
    kinds_for,
    measure_costs,
    quantizable,
)
from edgeagent.optimize.spare_bytes import with_spare_bytes
from edgeagent.optimize.targets import Measured, Targets, choose, nearest, with_best_flags
from edgeagent.optimize.texts import chunks_of, read_text
from edgeagent.optimize.type_speeds import TypeSpeeds, predicted_speeds, timed_speeds
from edgeagent.optimize.work_folder import work_folder

# Finest first. Several of them are the same file where rows are no multiples of 256.
UNIFORM = (
    "Q8_0", "Q6_K", "Q5_1", "Q5_K_M", "Q5_0", "Q4_1", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "Q3_K_M", "Q2_K",
)  # fmt: skip
# Mixed candidates below the largest size that is allowed.
SHARES_OF_BOUND = (1.0, 0.92, 0.84)
# Of the time of a token: what is timed later may be this much slower than what the types were.
SPARE = 0.95
_FINE = ("F32", "F16", "BF16")
Speeds = Callable[[set[str]], Awaitable[TypeSpeeds]]


@dataclass(frozen=True)
class SearchOptions:
    """What is searched with. `rates`: of another device, whose decode rate is predicted; None: this one's,
    which is measured, and predicted by the speed of each type."""

    calibration: tuple[Path, ...]
    held_out: tuple[Path, ...]
    targets: Targets
    rates: Rates | None = None
    n_ctx: int = 512
    n_threads: int = 1
    calibration_chunks: int = 32
    tuning_chunks: int = 4
    held_out_chunks: int = 16
    layers_together: int = 3
    special: bool = False
    limit_s: float | None = None
    time_again: bool = False


@dataclass
class SearchResult:
    """`chosen` None: no candidate meets the targets. `notes`: what a reader of the report must know."""

    source: Path
    reference: Path
    measured: list[Measured]
    chosen: Measured | None
    predicted: dict[str, int]
    notes: list[str] = field(default_factory=list)


async def search(
    source: Path, out: Path, options: SearchOptions, tell: Tell = lambda what, n, total: None,
    workers: Workers | None = None,
) -> SearchResult:  # fmt: skip
    """Search, and leave the chosen file, its recipe and the work in `out`. Without `workers` candidates are
    measured one after another on this machine. Raises: InvalidParameter, ..."""
    check_source(source)
    for path in (*options.calibration, *options.held_out):
        read_text(path)
    deadline_s = None if options.limit_s is None else time.monotonic() + options.limit_s
    with work_folder(out) as work:
        return await _search(source, out, work, options, deadline_s, tell, workers)


async def _search(
    source: Path, out: Path, work: Path, options: SearchOptions, deadline_s: float | None, tell: Tell,
    workers: Workers | None,
) -> SearchResult:  # fmt: skip
    journal = Journal(work / "journal.jsonl", about(source, options))
    reference, notes = _reference(source, work, options.n_threads)
    header = read_header(reference)
    evaluation = EvaluationOptions(
        texts=options.held_out, n_ctx=options.n_ctx, max_chunks=options.held_out_chunks,
        n_threads=options.n_threads, special=options.special,
    )  # fmt: skip

    async def speeds(kinds: set[str]) -> TypeSpeeds:
        if options.rates is not None:
            return predicted_speeds(reference, kinds, options.rates)
        return await timed_speeds(
            reference, kinds, work, evaluation, journal, tell, time_again=options.time_again
        )

    wanted, importance, on_grid = await _candidates(
        reference, header, work, options, journal, speeds, tell
    )
    if importance is None:
        smallest = min(one.n_bytes for one in wanted)
        notes.append(
            f"No file of this model is within the bound; the smallest has {smallest} bytes."
        )
    notes += [
        f"{n} tensors of the source were rounded to {kind} before: types that hold its grid keep them as "
        "they are. What that rounding had lost cannot be measured here."
        for kind, n in on_grid.items()
    ]  # fmt: skip
    timed = await speeds(_kinds_of(wanted, header)) if options.rates is None else None
    bench = Bench(reference, importance, work, evaluation, options.rates, timed)
    measure = partial(
        measured_candidates, bench, journal=journal, deadline_s=deadline_s, tell=tell, workers=workers,
        time_again=options.time_again,
    )  # fmt: skip
    known = await measure(wanted)
    if len(known) < len(wanted):
        notes.append(
            f"The time was up after {len(known)} of {len(wanted)} candidates; the same command goes on."
        )
    notes += _notes_on_speed(known)
    chosen = choose(options.targets, known)
    if options.rates is None and len(known) == len(wanted):
        tried, variants = await _with_flags(options.targets, chosen, wanted, known, measure)
        wanted, known = [*wanted, *tried], [*known, *variants]
        base = chosen or choose(options.targets, variants)
        chosen = base and with_best_flags(options.targets, base, variants)
    predicted = {one.name: one.n_bytes for one in wanted}
    result = SearchResult(source, reference, known, chosen, predicted, notes)
    if chosen is not None:
        recipe = next(one.recipe for one in wanted if one.name == chosen.name)
        made = quantize(
            reference, out / f"{source.stem}-{chosen.file}.gguf", recipe, importance=importance,
            n_threads=options.n_threads,
        )  # fmt: skip
        write_recipe(made, out / f"{source.stem}-{chosen.file}.recipe.toml")
    return result


async def _with_flags(
    targets: Targets, chosen: Measured | None, wanted: Sequence[Candidate], known: Sequence[Measured],
    measure: Callable[[Sequence[Candidate]], Awaitable[list[Measured]]],
) -> tuple[list[Candidate], list[Measured]]:  # fmt: skip
    """The chosen candidate with other flags; where there is none, that which misses the targets least."""
    best = chosen or nearest(targets, known, 1)[0]
    one = next(one for one in wanted if one.name == best.name)
    tried = loaded_otherwise(one)
    return tried, await measure(tried)


def _notes_on_speed(measured: Sequence[Measured]) -> list[str]:
    """What is to be said about how decode rates were timed and predicted."""
    notes = []
    busy = [one for one in measured if one.others_cores > 0]
    if busy:
        most = max(one.others_cores for one in busy)
        notes.append(
            f"The machine was not quiet: {len(busy)} of {len(measured)} candidates found no quiet moment in "
            f"{MAX_RUNS} runs (other programs used up to {most:.1f} cores). Their decode rates are those of "
            "the best run; `--time-again` times them again on a quiet machine."
        )
    n_good, n = n_within(
        [one.predicted_tok_s for one in measured],
        [DecodeRate(one.decode_tok_s, one.others_cores) for one in measured],
    )
    if n:
        notes.append(
            f"The predicted decode rate was within {TOLERANCE:.0%} of the timed one for {n_good} of {n} "
            "candidates that were timed on a quiet machine."
        )
    return notes


def _kinds_of(wanted: Sequence[Candidate], header: Header) -> set[str]:
    """The types that matrices have in some candidates."""
    able = quantizable(header)
    return {one.types[name] for one in wanted for name in able}


async def _candidates(
    reference: Path, header: Header, work: Path, options: SearchOptions, journal: Journal, speeds: Speeds,
    tell: Tell,
) -> tuple[list[Candidate], Path | None, dict[str, int]]:  # fmt: skip
    """What is worth measuring, the importance matrix, and how many tensors lie on the grid of each type.
    Without a matrix where no file is within the bound on size: nothing is worth probing then."""
    bound = options.targets.max_bytes
    uniform = uniform_candidates(reference, header, None)
    if bound is not None and bound < smallest_bytes(reference, header, uniform):
        return promising(uniform, options.targets), None, {}
    check_space(work, max(one.n_bytes for one in promising(uniform, options.targets)))
    importance = work / "imatrix.gguf"
    await collect(
        reference, options.calibration, importance, n_ctx=options.n_ctx,
        max_chunks=options.calibration_chunks, n_threads=options.n_threads, special=options.special,
        also_checked=options.held_out, tell=tell,
    )  # fmt: skip
    uniform = uniform_candidates(reference, header, importance)
    mixed, costs = await _mixed(
        reference, header, importance, uniform, options, journal, speeds, tell
    )
    return promising([*mixed, *uniform], options.targets), importance, _on_grid(costs)


def about(source: Path, options: SearchOptions) -> str:
    """What the measurements of a journal depend on, as a digest. Targets and time are not among it."""
    parts = [sha256_of(source), *(sha256_of(p) for p in (*options.calibration, *options.held_out))]
    parts += [
        str(x) for x in (
            options.n_ctx, options.n_threads, options.calibration_chunks, options.tuning_chunks,
            options.held_out_chunks, options.layers_together, options.special, options.rates,
        )
    ]  # fmt: skip
    return f"search {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"


def _reference(source: Path, work: Path, n_threads: int) -> tuple[Path, list[str]]:
    kinds = {tensor.type.name for tensor in read_header(source).tensors}
    coarse = sorted(kinds - set(_FINE))
    if not coarse and "BF16" not in kinds:
        return source, []
    path = work / "reference.F16.gguf"
    if not path.exists():
        quantize(source, path, Recipe("F16"), n_threads=n_threads)
    note = f"The source is quantized ({', '.join(coarse)}): dequantized to F16 it is the reference, and what "
    note += "was lost before does not count."
    return path, [note] if coarse else []


def uniform_candidates(reference: Path, header: Header, importance: Path | None) -> list[Candidate]:
    """One for each mixture that gives a file of its own."""
    found: dict[tuple[str, ...], Candidate] = {}
    recipes = [Recipe(file_type) for file_type in UNIFORM]
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
