"""Candidates of a search: files that could be made, and how each is made and measured by itself."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s
from edgeagent.errors import EngineDied, EngineFailed, InvalidParameter, ModelUnusable
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.decode_rates import DecodeRate, predictions, timed_decode
from edgeagent.optimize.evaluate import (
    EvaluationOptions,
    Reference,
    Tell,
    compared,
    model_file,
    reference_of,
)
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.quantize import quantize
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.targets import Measured
from edgeagent.optimize.type_speeds import TypeSpeeds
from edgeagent.types.engine_flags import CacheFlags

logger = logging.getLogger(__name__)

# A worker that dies costs the repeat of its candidate; one whose workers die every time ends the search.
MAX_TRIES = 3

CANNOT_BE_LOADED = "cannot_be_loaded"
_QUALITY = ("n_bytes", "kld", "same_top", "perplexity")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A file that could be made: its recipe, its exact size, and the types of all tensors where they come
    from a mixture of llama.cpp. With `flags`: how the file of candidate `base` is loaded."""

    name: str
    recipe: Recipe
    n_bytes: int
    types: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    flags: CacheFlags | None = None


@dataclass(frozen=True)
class Bench:
    """How candidates are measured. `rates`: of another device, whose decode rate is predicted; None: this
    one's is timed, and predicted by `speeds`."""

    reference: Path
    importance: Path | None
    folder: Path
    evaluation: EvaluationOptions
    rates: Rates | None = None
    speeds: TypeSpeeds | None = None

    def key(self, candidate: Candidate) -> str:
        """Under which a journal has the quality of a candidate."""
        return f"candidate {self._digest(candidate)}"

    def rate_key(self, candidate: Candidate) -> str:
        """Under which a journal has its decode rate."""
        return f"rate {self._digest(candidate)}"

    def _digest(self, candidate: Candidate) -> str:
        plain = " plain" if self.importance is None else ""
        flags = f" {candidate.flags}" if candidate.flags is not None else ""
        return f"{recipe_key(candidate.recipe)}{plain}{flags}"

    def with_flags(self, flags: CacheFlags | None) -> Bench:
        """This, with the KV cache and flash attention of a candidate."""
        if flags is None:
            return self
        evaluation = replace(
            self.evaluation, kv_type=flags.kv_type, flash_attention=flags.flash_attention
        )
        return replace(self, evaluation=evaluation, speeds=None)

    async def known(self) -> Reference:
        """The predictions of the reference on the held-out texts."""
        async with scoring_worker(
            self.evaluation.config(self.reference, is_scoring=True)
        ) as client:
            return await reference_of(client, await self.evaluation.chunks_of(client))

    async def measure(self, candidate: Candidate, known: Reference | None) -> dict[str, float]:
        """Make a candidate's file, measure it, and remove it. Without `known` it is only timed."""
        path = self.folder / f"candidate-{recipe_key(candidate.recipe)[:12]}.gguf"
        try:
            quantize(
                self.reference, path, candidate.recipe, importance=self.importance,
                n_threads=self.evaluation.n_threads,
            )  # fmt: skip
            bench = self.with_flags(candidate.flags)
            quality = {} if known is None else await bench._quality(path, known)
            return quality | await bench._rate(path)
        except (EngineFailed, ModelUnusable):
            # Not every model can be loaded so: rows of heads must be whole blocks of a quantized cache.
            if candidate.flags is None:
                raise
            return {CANNOT_BE_LOADED: 1.0}
        finally:
            path.unlink(missing_ok=True)

    async def _quality(self, path: Path, known: Reference) -> dict[str, float]:
        async with scoring_worker(self.evaluation.config(path, is_scoring=True)) as client:
            found = await compared(client, model_file(path), known)
        assert found.divergence is not None and found.perplexity is not None
        return {
            "n_bytes": float(found.size_bytes),
            "kld": found.divergence.mean,
            "same_top": found.divergence.same_top,
            "perplexity": found.perplexity.value,
        }

    async def _rate(self, path: Path) -> dict[str, float]:
        if self.rates is not None:
            shape = from_facts(inspect_apart(path))
            depth = self.evaluation.n_prompt
            return {"decode_tok_s": decode_tokens_per_s(shape, self.rates, depth=depth)}
        rate = await timed_decode(path, self.evaluation)
        return {"decode_tok_s": rate.tok_s, "others_cores": rate.others_cores}

    def expected_tok_s(self, candidate: Candidate) -> float | None:
        """By the speed of its types; None where it is not known, or was timed beside other programs."""
        if self.speeds is None or self.speeds.others_cores or candidate.flags is not None:
            return None
        token_s = self.speeds.seconds(candidate.types)
        return 1 / token_s if token_s else None


# How a file is loaded otherwise than by default. Flash attention "auto" is on for a quantized cache.
LOADED_OTHERWISE = (
    CacheFlags(flash_attention="off"), CacheFlags(kv_type="q8_0"), CacheFlags(kv_type="q4_0"),
)  # fmt: skip


def loaded_otherwise(candidate: Candidate) -> list[Candidate]:
    """The same file with each of the other flags."""
    return [
        replace(candidate, name=f"{candidate.name}, {flags}", base=candidate.name, flags=flags)
        for flags in LOADED_OTHERWISE
    ]


# Gives the values of candidates as they come: of a machine, or of many. Without a reference, only rates.
Workers = Callable[
    [Bench, Sequence[Candidate], Reference | None, float | None],
    AsyncIterator[tuple[Candidate, dict[str, float]]],
]


async def measured_candidates(
    bench: Bench,
    wanted: Sequence[Candidate],
    journal: Journal,
    deadline_s: float | None,
    tell: Tell,
    workers: Workers | None = None,
    *,
    time_again: bool = False,
) -> list[Measured]:
    """Measure the candidates that the journal does not have, as far as the time goes; the order stays.

    Without `workers` they are measured one after another on this machine. `time_again`: those that were timed
    beside other programs are timed again.
    """
    work = workers or one_by_one

    def quality_of(one: Candidate) -> dict[str, float] | None:
        values = journal.get(bench.key(one))
        if values is None or CANNOT_BE_LOADED in values:
            return values
        found = journal.get(bench.key(one), *_QUALITY)
        if found is not None and found["n_bytes"] != one.n_bytes:
            raise InvalidParameter(
                f"The journal has {found['n_bytes']:.0f} bytes for {one.name}, which has {one.n_bytes}: it "
                "was changed; choose another directory."
            )
        return found

    def rate_of(one: Candidate) -> dict[str, float] | None:
        return journal.get(bench.rate_key(one), "decode_tok_s")

    def is_measured(one: Candidate) -> bool:
        quality = quality_of(one)
        return quality is not None and (rate_of(one) is not None or CANNOT_BE_LOADED in quality)

    def is_to_be_timed(one: Candidate) -> bool:
        quality, rate = quality_of(one), rate_of(one)
        if quality is None or CANNOT_BE_LOADED in quality:
            return False
        return rate is None or (time_again and rate.get("others_cores", 0.0) > 0)

    new = [one for one in wanted if quality_of(one) is None]
    untimed = [one for one in wanted if is_to_be_timed(one)]
    # One is measured whatever the time is, so that there is something to report.
    n_sure = 1 if deadline_s is not None and not any(map(is_measured, wanted)) else 0
    is_late = deadline_s is not None and time.monotonic() > deadline_s
    known = await bench.known() if new and (n_sure or not is_late) else None
    if n_done := len(wanted) - len(new) - len(untimed):
        tell("candidates", n_done, len(wanted))
    for part, reference, until_s in (
        (new[:n_sure], known, None), (new[n_sure:], known, deadline_s), (untimed, None, deadline_s),
    ):  # fmt: skip
        if not part or (reference is None and part is not untimed):
            continue
        async for one, values in work(bench, part, reference, until_s):
            _keep(journal, bench, one, values)
            tell("candidates", 1, len(wanted))
    found = {}
    for one in filter(is_measured, wanted):
        if CANNOT_BE_LOADED not in (quality := quality_of(one) or {}):
            found[one.name] = quality | (rate_of(one) or {})
    done = [one for one in wanted if one.name in found]
    return _with_predictions(bench, done, [found[one.name] for one in done])


def _keep(journal: Journal, bench: Bench, one: Candidate, values: Mapping[str, float]) -> None:
    """Of two rates that were timed beside other programs, the higher one stays."""
    quality = {name: values[name] for name in (*_QUALITY, CANNOT_BE_LOADED) if name in values}
    rate = {name: value for name, value in values.items() if name not in quality}
    if quality:
        journal.add(bench.key(one), quality)
    before = journal.get(bench.rate_key(one), "decode_tok_s")
    is_worse = before is not None and rate.get("others_cores", 0.0) > 0
    if rate and not (is_worse and before and before["decode_tok_s"] > rate["decode_tok_s"]):
        journal.add(bench.rate_key(one), rate)


async def one_by_one(
    bench: Bench, left: Sequence[Candidate], known: Reference | None, deadline_s: float | None
) -> AsyncIterator[tuple[Candidate, dict[str, float]]]:
    """Measure one after another on this machine; none begins after the deadline."""
    for one in left:
        if deadline_s is not None and time.monotonic() > deadline_s:
            return
        yield one, await _repeated(bench, one, known)


async def _repeated(bench: Bench, one: Candidate, known: Reference | None) -> dict[str, float]:
    """Measure again where the worker died. Raises: EngineDied where it dies every time."""
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return await bench.measure(one, known)
        except EngineDied:
            if attempt == MAX_TRIES:
                raise
            logger.warning("candidate_repeated name=%s attempt=%d", one.name, attempt)
    raise AssertionError("the loop returns or raises")


def _with_predictions(
    bench: Bench, done: Sequence[Candidate], values: Sequence[dict[str, float]]
) -> list[Measured]:
    predicted = predictions(
        [bench.expected_tok_s(one) for one in done],
        [DecodeRate(one["decode_tok_s"], one.get("others_cores", 0.0)) for one in values],
    )
    return [
        Measured(
            one.name, int(v["n_bytes"]), v["kld"], v["same_top"], v["perplexity"], v["decode_tok_s"],
            v.get("others_cores", 0.0), rate, one.base, one.flags,
        )
        for one, v, rate in zip(done, values, predicted, strict=True)
    ]  # fmt: skip


def recipe_key(recipe: Recipe) -> str:
    """A digest of what a recipe makes."""
    text = f"{recipe.file_type} {sorted(recipe.tensors.items())} {recipe.dropped_layers} {recipe.plain}"
    return hashlib.sha256(text.encode()).hexdigest()
