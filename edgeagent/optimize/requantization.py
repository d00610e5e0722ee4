"""Which tensor types would make an installed model faster on this device, and what that costs in quality.

    forecasts       by the measured rates of tensor types (`device/tensor_rates.py`), before any file is made
    worthwhile      those that are fast enough, fastest first
    each_tried      these: each file is made and its KL divergence to its source measured, as far as it
                    takes to see that it is above the bound; if it is not, both are timed
    tried           the same of one type

The divergence is to the file that is there. What that one lost against the original weights comes on top.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import ModelShape, from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s, prefill_tokens_per_s
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.divergence import perplexity
from edgeagent.optimize.evaluate import (
    EvaluationOptions,
    Reference,
    Tell,
    compared,
    model_file,
    reference_of,
    time_model,
)
from edgeagent.optimize.figures import ModelFigures, RunFigures
from edgeagent.optimize.quantize import (
    check_source,
    planned,
    predicted_bytes,
    quantize,
    tensor_bytes,
)
from edgeagent.optimize.recipe import Recipe

# A text of our own, about this program: what a model is asked about elsewhere may lose more, or less.
SAMPLE_TEXT = Path(__file__).with_name("sample.txt")
CANDIDATES = ("Q4_0", "IQ4_NL", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
# What a request is for the choice: more prompt than answer, as with tools and passages of documents.
PROMPT_TOKENS, ANSWER_TOKENS = 512, 128
LEAST_GAIN = 1.15
TEXT_CHUNKS = 4
N_RUNS = 3


@dataclass(frozen=True)
class Forecast:
    """What a type would bring. Gains are rates over those of the file that is there; `request_gain` of a
    prompt of 512 tokens with 128 more. `trial_s`: seconds that scoring it takes, the most of a trial."""

    file_type: str
    size_bytes: int
    prefill_gain: float
    decode_gain: float
    request_gain: float
    trial_s: float


@dataclass(frozen=True)
class RequantizedFile:
    """A file that was made, and the figures of its source and of itself, measured side by side. One that
    loses too much is not timed."""

    path: Path
    file_type: str
    source: ModelFigures
    figures: ModelFigures

    @property
    def divergence(self) -> float:
        """Mean KL divergence to the source, in nats."""
        assert self.figures.divergence is not None
        return self.figures.divergence.mean

    @property
    def largest_divergence(self) -> float:
        """What it is below, almost surely: the mean and two standard errors. By the mean alone a mixture that
        is fitted to the bound would be as often above it as below."""
        assert self.figures.divergence is not None
        return self.divergence + 2 * self.figures.divergence.error

    @property
    def is_timed(self) -> bool:
        return bool(self.figures.runs)

    @property
    def prefill_gain(self) -> float:
        return self._gain("prefill_tok_s")

    @property
    def decode_gain(self) -> float:
        return self._gain("decode_tok_s")

    @property
    def request_gain(self) -> float:
        return _request_s(self.source) / _request_s(self.figures)

    def timed(self, before: RunFigures, after: RunFigures) -> RequantizedFile:
        """With one more run of the source and of the file."""
        source = replace(self.source, runs=(*self.source.runs, before))
        return replace(
            self, source=source, figures=replace(self.figures, runs=(*self.figures.runs, after))
        )

    def _gain(self, name: str) -> float:
        return _median(self.figures, name) / _median(self.source, name)


def forecasts(
    source: Path, rates: Rates, *, most_bytes: int, kinds: Sequence[str] = CANDIDATES
) -> list[Forecast]:
    """What each type would bring that fits into `most_bytes`, fastest first.

    Raises: GGUFRefused, ModelUnusable; InvalidParameter for a split file.
    """
    header, shape = read_header(source), from_facts(inspect_apart(source))
    recipes = planned(source, [Recipe(kind) for kind in kinds])
    found = [
        _forecast(header, shape, rates, kind, types)
        for kind, types in zip(kinds, recipes, strict=True)
    ]
    within = [one for one in found if one.size_bytes <= most_bytes]
    return sorted(within, key=lambda one: -one.request_gain)


def _forecast(
    header: Header, shape: ModelShape, rates: Rates, file_type: str, types: Mapping[str, str]
) -> Forecast:
    before = _rates_of(shape, rates)
    prefill, decode = _rates_of(_with_types(shape, header, types), rates)
    return Forecast(
        file_type,
        predicted_bytes(header, types),
        prefill / before[0],
        decode / before[1],
        _seconds(*before) / _seconds(prefill, decode),
        TEXT_CHUNKS * PROMPT_TOKENS * (1 / before[0] + 1 / prefill),
    )


def forecast_of(source: Path, rates: Rates, file_type: str, types: Mapping[str, str]) -> Forecast:
    """What a file of these types would bring."""
    header, shape = read_header(source), from_facts(inspect_apart(source))
    return _forecast(header, shape, rates, file_type, types)


def worthwhile(found: Sequence[Forecast]) -> list[Forecast]:
    """Those that are fast enough, fastest first."""
    return [one for one in found if one.request_gain >= LEAST_GAIN]


async def tried(
    source: Path, folder: Path, file_type: str, options: EvaluationOptions, most_divergence: float,
    tell: Tell = lambda what, n, total: None,
) -> RequantizedFile:  # fmt: skip
    """Make the file in `folder` and measure it beside its source.

    Raises: InvalidParameter for a type that does not exist, a source of too few bits, a full disk or an
    unusable text; GGUFRefused, ModelUnusable.
    """
    return await Trials(source, folder, options, most_divergence, 1, tell).made(file_type)


async def each_tried(trials: Trials, file_types: Sequence[str]) -> AsyncIterator[RequantizedFile]:
    """These types, one after another. Before the next one is made, the file is removed. Raises as `tried`."""
    for kind in file_types:
        made = await trials.made(kind)
        yield made
        made.path.unlink(missing_ok=True)


class Trials:
    """How files of one source are made and measured beside it; `tell` hears of every step, so that the time
    left can be shown. `n_files`: how many there may be."""

    def __init__(
        self, source: Path, folder: Path, options: EvaluationOptions, bound: float, n_files: int, tell: Tell
    ) -> None:  # fmt: skip
        check_source(source)
        self.source, self.folder = source, folder
        self.options, self.bound = options, bound
        self._n_files, self._tell = n_files, tell
        self._figures = model_file(source)
        self._n_chunks = options.max_chunks or 1
        self._known: Reference | None = None
        self._n_made = 0

    async def reference(self) -> Reference:
        """The predictions of the source, which all files are compared with."""
        if self._known is None:
            config = self.options.config(self.source, is_scoring=True)
            async with scoring_worker(config) as client:
                chunks = await self.options.chunks_of(client)
                self._n_chunks = len(chunks)
                self._known = await reference_of(client, chunks, self._step)
            self._figures = replace(self._figures, perplexity=perplexity(self._known.nll))
        return self._known

    async def made(self, kind: str) -> RequantizedFile:
        """A file of one type and its divergence; one within the bound is timed."""
        found = await self.scored(kind)
        return found if found.divergence > self.bound else await self.timed(found)

    def expect(self, n_files: int) -> None:
        """So many more files may be made."""
        self._n_files = self._n_made + n_files

    async def scored(
        self, kind: str, recipe: Recipe | None = None, columns: Mapping[str, bytes] | None = None,
        *, is_scored_whole: bool = False,
    ) -> RequantizedFile:  # fmt: skip
        """A file of one type, or by a recipe and an importance matrix (`columns`), and its divergence, which
        is not measured to the end where it is surely above the bound, unless `is_scored_whole`: chunks of a
        text differ by more than the tokens of one do."""
        known = await self.reference()
        self._n_made += 1
        target, options = self.folder / f"{self._n_made}-{kind}.gguf", self.options
        quantize(
            self.source,
            target,
            recipe or Recipe(kind),
            columns=columns,
            n_threads=options.n_threads,
        )
        self._step()
        n_scored = 0

        def scored() -> None:
            nonlocal n_scored
            n_scored += 1
            self._step()

        async with scoring_worker(options.config(target, is_scoring=True)) as client:
            bound = math.inf if is_scored_whole else self.bound
            found = await compared(client, model_file(target), known, scored, bound)
        made = RequantizedFile(target, kind, self._figures, found)
        if made.divergence > self.bound:
            self._step(self._n_chunks - n_scored + 2 * options.n_runs)
        return made

    async def timed(self, made: RequantizedFile) -> RequantizedFile:
        """With the speed of the file and of its source, timed in turn."""
        for _ in range(self.options.n_runs):
            before = await time_model(self.source, self.options)
            self._step()
            after = await time_model(made.path, self.options)
            self._step()
            made = made.timed(before, after)
        return made

    def _step(self, n: int = 1) -> None:
        of_a_file = 1 + self._n_chunks + 2 * self.options.n_runs
        self._tell("types", n, self._n_chunks + self._n_files * of_a_file)


def is_good(made: RequantizedFile) -> bool:
    """Whether a file loses little enough and is faster, as measured."""
    return made.is_timed and made.request_gain >= LEAST_GAIN


def _rates_of(shape: ModelShape, rates: Rates) -> tuple[float, float]:
    """Prefill and decode, in tokens a second."""
    prefill = prefill_tokens_per_s(shape, rates, n_prompt=PROMPT_TOKENS)
    return prefill, decode_tokens_per_s(shape, rates, depth=PROMPT_TOKENS)


def _seconds(prefill_tok_s: float, decode_tok_s: float) -> float:
    return PROMPT_TOKENS / prefill_tok_s + ANSWER_TOKENS / decode_tok_s


def _request_s(figures: ModelFigures) -> float:
    return _seconds(_median(figures, "prefill_tok_s"), _median(figures, "decode_tok_s"))


def _median(figures: ModelFigures, name: str) -> float:
    spread = figures.spread(name)
    assert spread is not None
    return spread.median


def _with_types(shape: ModelShape, header: Header, types: Mapping[str, str]) -> ModelShape:
    """The shape of the file with tensors of these types."""
    by_type: dict[str, int] = {}
    for tensor in header.tensors:
        kind = types[tensor.name]
        by_type[kind] = by_type.get(kind, 0) + tensor_bytes(tensor.n_elements, kind)
    sizes = {tensor.name: tensor.n_elements for tensor in header.tensors}
    table, output = "token_embd.weight", "output.weight"
    found = replace(shape, bytes_by_type=by_type)
    if table in types:
        n_bytes = tensor_bytes(sizes[table], types[table])
        found = replace(found, embedding_type=types[table], embedding_bytes=n_bytes)
    if shape.output_type is not None and output in types:
        n_bytes = tensor_bytes(sizes[output], types[output])
        found = replace(found, output_type=types[output], output_bytes=n_bytes)
    return found
