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

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgeagent.catalog.gguf.header import read_header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.candidates import (
    Bench,
    Candidate,
    Workers,
    loaded_otherwise,
    measured_candidates,
)
from edgeagent.optimize.decode_rates import TOLERANCE, DecodeRate, n_within
from edgeagent.optimize.evaluate import EvaluationOptions, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.proposals import kinds_of, propose
from edgeagent.optimize.quantize import check_source, quantize
from edgeagent.optimize.recipe import Recipe, write_recipe
from edgeagent.optimize.search_options import SearchOptions, about
from edgeagent.optimize.targets import Measured, Targets, choose, nearest, with_best_flags
from edgeagent.optimize.texts import read_text
from edgeagent.optimize.type_speeds import TypeSpeeds, predicted_speeds, timed_speeds
from edgeagent.optimize.work_folder import check_out, work_folder

_FINE = ("F32", "F16", "BF16")


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
    check_out(out, source.stem)
    with work_folder(out) as work:
        return await _search(source, out, work, options, deadline_s, tell, workers)


async def _search(
    source: Path, out: Path, work: Path, options: SearchOptions, deadline_s: float | None, tell: Tell,
    workers: Workers | None,
) -> SearchResult:  # fmt: skip
    inputs = about(source, options)
    journal = Journal(work / "journal.jsonl", inputs)
    reference, notes = _reference(source, work, options.n_threads)
    header = read_header(reference)
    evaluation = EvaluationOptions(
        texts=options.held_out, n_ctx=options.n_ctx, max_chunks=options.held_out_chunks,
        n_threads=options.n_threads, special=options.special, n_prompt=options.depth,
    )  # fmt: skip

    async def speeds(kinds: set[str]) -> TypeSpeeds:
        if options.rates is not None:
            return predicted_speeds(reference, kinds, options.rates, options.depth)
        return await timed_speeds(
            reference, kinds, work, evaluation, journal, tell, time_again=options.time_again
        )

    wanted, importance, on_grid = await propose(
        reference, header, work, options, journal, speeds, tell
    )
    if importance is None:
        smallest = min(one.n_bytes for one in wanted)
        notes.append(
            f"No file of this model is within the bound; the smallest has {smallest} bytes."
        )
    notes += [
        f"{n} tensor{'s' * (n > 1)} of the source {'were' if n > 1 else 'was'} rounded to {kind} before: "
        "types that hold its grid keep the values as they are. What that rounding had lost cannot be "
        "measured here."
        for kind, n in on_grid.items()
    ]  # fmt: skip
    timed = await speeds(kinds_of(wanted, header)) if options.rates is None else None
    if timed is not None and timed.others_cores:
        notes.append(
            "The types were timed beside other programs, so that no rates are predicted by them; "
            "`--time-again` times them again on a quiet machine."
        )
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
    if about(source, options) != inputs:
        journal.discard()
        raise InvalidParameter(
            f"{source} or a text was changed while it was searched with, so that the measurements are of no "
            "use: they are deleted; begin again."
        )
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
            f"The machine was not quiet: {len(busy)} of {len(measured)} candidates found no quiet moment "
            f"(other programs used up to {most:.1f} cores). Their decode rates are those of the best run; "
            "`--time-again` times them again on a quiet machine."
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
