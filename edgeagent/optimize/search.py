"""The search for a file that meets targets on size, speed and quality.

    1. reference    the F16 file; a quantized source is dequantized to one
    2. importance   the matrix over the calibration text
    3. sensitivity  what each tensor costs when only it is rounded
    4. candidates   uniform mixtures of llama.cpp, and mixed precision at the wanted sizes; exact sizes first
    5. measurement  each promising candidate is made and measured on the held-out text, then kept or removed
    6. choice       of least divergence among those that meet all targets

Every measurement is written to a journal, so that a search that is ended at any point goes on where it was,
and ends with the same file to the byte.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import (
    EvaluationOptions,
    Reference,
    Tell,
    compared,
    model_file,
    reference_of,
    time_model,
)
from edgeagent.optimize.imatrix import collect, open_config
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.mixed_precision import best_allocation
from edgeagent.optimize.quantize import (
    check_source,
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
from edgeagent.optimize.targets import Measured, Targets, choose
from edgeagent.optimize.texts import chunks_of

# Finest first. Several of them are the same file where rows are no multiples of 256.
UNIFORM = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "Q3_K_M", "Q2_K")
# Mixed candidates below the largest size that is allowed.
SHARES_OF_BOUND = (1.0, 0.92, 0.84)
# A decode rate on this device is the median of so many processes.
TIMED_RUNS = 3
_FINE = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class SearchOptions:
    """What is searched with. `rates`: of another device, whose decode rate is predicted; None: this one's,
    which is measured."""

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


@dataclass
class SearchResult:
    """`chosen` None: no candidate meets the targets. `notes`: what a reader of the report must know."""

    source: Path
    reference: Path
    measured: list[Measured]
    chosen: Measured | None
    predicted: dict[str, int]
    lossless: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A file that could be made: its recipe and its exact size."""

    name: str
    recipe: Recipe
    n_bytes: int


async def search(
    source: Path, out: Path, options: SearchOptions, tell: Tell = lambda what, n, total: None
) -> SearchResult:
    """Search, and leave the chosen file, its recipe and the work in `out`. Raises: InvalidParameter, ..."""
    check_source(source)
    started = time.monotonic()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    journal = Journal(work / "journal.jsonl", about(source, options))
    reference, notes = _reference(source, work, options.n_threads)
    header = read_header(reference)
    wanted, importance, lossless = await _candidates(
        reference, header, work, options, journal, tell
    )
    if importance is None:
        smallest = min(one.n_bytes for one in wanted)
        notes.append(
            f"No file of this model is within the bound; the smallest has {smallest} bytes."
        )
    notes += [
        f"{n} tensors of the source were rounded to {kind} before: {kind} was left out for them, because it "
        "would lose nothing against this reference, but would against the original weights."
        for kind, n in lossless.items()
    ]  # fmt: skip
    known = await _measure(reference, wanted, importance, work, options, journal, tell, started)
    if len(known) < len(wanted):
        notes.append(
            f"The time was up after {len(known)} of {len(wanted)} candidates; the same command goes on."
        )
    chosen = choose(options.targets, known)
    predicted = {one.name: one.n_bytes for one in wanted}
    result = SearchResult(source, reference, known, chosen, predicted, lossless, notes)
    if chosen is not None:
        recipe = next(one.recipe for one in wanted if one.name == chosen.name)
        made = quantize(
            reference, out / f"{source.stem}-{chosen.name}.gguf", recipe, importance=importance,
            n_threads=options.n_threads,
        )  # fmt: skip
        write_recipe(made, out / f"{source.stem}-{chosen.name}.recipe.toml")
    return result


async def _candidates(
    reference: Path, header: Header, work: Path, options: SearchOptions, journal: Journal, tell: Tell
) -> tuple[list[Candidate], Path | None, dict[str, int]]:  # fmt: skip
    """What is worth measuring, the importance matrix, and how many tensors each lossless type was left out
    for. Without a matrix where no file is within the bound on size: nothing is worth probing then."""
    bound = options.targets.max_bytes
    uniform = uniform_candidates(reference, header, None)
    if bound is not None and bound < smallest_bytes(reference, header, uniform):
        return promising(uniform, options.targets), None, {}
    importance = work / "imatrix.gguf"
    await collect(
        reference, options.calibration, importance, n_ctx=options.n_ctx,
        max_chunks=options.calibration_chunks, n_threads=options.n_threads, special=options.special,
        tell=tell,
    )  # fmt: skip
    uniform = uniform_candidates(reference, header, importance)
    mixed, costs = await _mixed(reference, header, importance, uniform, options, journal, tell)
    return promising([*mixed, *uniform], options.targets), importance, _lossless(costs)


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
        found.setdefault(key, Candidate(recipe.file_type, recipe, size))
    return list(found.values())


async def _mixed(
    reference: Path, header: Header, importance: Path, uniform: Sequence[Candidate], options: SearchOptions,
    journal: Journal, tell: Tell,
) -> tuple[list[Candidate], list[TensorCosts]]:  # fmt: skip
    """Mixed precision at the sizes that the targets ask for."""
    fixed = fixed_bytes(reference, header)
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
        for size in mixed_sizes(options.targets, uniform):
            best = await best_allocation(
                client, tuning, groups, costs, size - fixed, journal, tell=tell
            )
            if best is not None:
                n_bytes = fixed + best.allocation.n_bytes
                found[n_bytes] = Candidate(
                    f"mixed-{n_bytes / 1e6:.4g}MB", Recipe("Q8_0", best.allocation.kinds), n_bytes
                )
    return list(found.values()), costs


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


def mixed_sizes(targets: Targets, uniform: Sequence[Candidate]) -> list[int]:
    """The sizes at which mixed precision is worth a try: those of the bound, or of three mixtures."""
    if targets.max_bytes is not None:
        return [int(share * targets.max_bytes) for share in SHARES_OF_BOUND]
    wanted = ("Q5_K_M", "Q4_K_M", "Q4_0")
    return [one.n_bytes for name in wanted for one in uniform if one.name == name]


def promising(candidates: Sequence[Candidate], targets: Targets) -> list[Candidate]:
    """Those that meet the bound on size, largest first. The finest one of all comes first, too: it shows what
    quality is in reach. Where none meets the bound, the smallest shows how far off it is."""
    ordered = sorted(candidates, key=lambda one: (-one.n_bytes, one.name))
    within = [
        one for one in ordered if targets.max_bytes is None or one.n_bytes <= targets.max_bytes
    ]
    return list(dict.fromkeys([ordered[0], *(within or ordered[-1:])]))


async def _measure(
    reference: Path, wanted: Sequence[Candidate], importance: Path | None, work: Path, options: SearchOptions,
    journal: Journal, tell: Tell, started: float,
) -> list[Measured]:  # fmt: skip
    """Make and measure the candidates, as far as the time goes."""
    evaluation = EvaluationOptions(
        texts=options.held_out, n_ctx=options.n_ctx, max_chunks=options.held_out_chunks, n_runs=TIMED_RUNS,
        n_threads=options.n_threads, special=options.special,
    )  # fmt: skip
    known: Reference | None = None
    measured: list[Measured] = []
    for candidate in wanted:
        key = f"candidate {recipe_key(candidate.recipe)}{' plain' if importance is None else ''}"
        values = journal.get(key)
        if values is None:
            is_late = options.limit_s is not None and time.monotonic() - started > options.limit_s
            if is_late and measured:
                break
            if known is None:
                async with scoring_worker(evaluation.config(reference, is_scoring=True)) as client:
                    known = await reference_of(client, await evaluation.chunks_of(client))
            path = work / "candidate.gguf"
            quantize(
                reference,
                path,
                candidate.recipe,
                importance=importance,
                n_threads=options.n_threads,
            )
            values = await _values(path, known, evaluation, options.rates)
            path.unlink()
            journal.add(key, values)
        measured.append(_measured(candidate, values))
        tell("candidates", 1, len(wanted))
    return measured


async def _values(
    path: Path, reference: Reference, evaluation: EvaluationOptions, rates: Rates | None
) -> dict[str, float]:
    async with scoring_worker(evaluation.config(path, is_scoring=True)) as client:
        found = await compared(client, model_file(path), reference)
    if rates is not None:
        decode = decode_tokens_per_s(from_facts(inspect_apart(path)), rates)
    else:
        runs = [await time_model(path, evaluation) for _ in range(evaluation.n_runs)]
        spread = replace(found, runs=tuple(runs)).spread("decode_tok_s")
        assert spread is not None
        decode = spread.median
    assert found.divergence is not None and found.perplexity is not None
    return {
        "n_bytes": float(found.size_bytes),
        "kld": found.divergence.mean,
        "same_top": found.divergence.same_top,
        "perplexity": found.perplexity.value,
        "decode_tok_s": decode,
    }


def _measured(candidate: Candidate, values: dict[str, float]) -> Measured:
    return Measured(
        candidate.name, int(values["n_bytes"]), values["kld"], values["same_top"], values["perplexity"],
        values["decode_tok_s"],
    )  # fmt: skip


def recipe_key(recipe: Recipe) -> str:
    """A digest of what a recipe makes."""
    text = f"{recipe.file_type} {sorted(recipe.tensors.items())} {recipe.dropped_layers}"
    return hashlib.sha256(text.encode()).hexdigest()


def _lossless(costs: Sequence[TensorCosts]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in costs:
        for kind in one.lossless:
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))
