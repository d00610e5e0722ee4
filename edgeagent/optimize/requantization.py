"""Which tensor types would make an installed model faster on this device, and what that costs in quality.

    forecasts   by the measured rates of tensor types (`device/tensor_rates.py`), before any file is made
    tried       one type: the file is made, its KL divergence to its source measured, and if that is within
                the bound, both are timed
    each_tried  the types that are worth it, fastest first

The divergence is to the file that is there. What that one lost against the original weights comes on top.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import ModelShape, from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_tokens_per_s, prefill_tokens_per_s
from edgeagent.optimize.evaluate import EvaluationOptions, Tell, evaluate
from edgeagent.optimize.figures import ModelFigures
from edgeagent.optimize.quantize import planned, predicted_bytes, quantize, tensor_bytes
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

    def _gain(self, name: str) -> float:
        return _median(self.figures, name) / _median(self.source, name)


def forecasts(
    source: Path, rates: Rates, *, most_bytes: int, kinds: Sequence[str] = CANDIDATES
) -> list[Forecast]:
    """What each type would bring that fits into `most_bytes`, fastest first.

    Raises: GGUFRefused, ModelUnusable; InvalidParameter for a split file.
    """
    header, shape = read_header(source), from_facts(inspect_apart(source))
    before = _rates_of(shape, rates)
    found = []
    for kind, types in zip(kinds, planned(source, [Recipe(k) for k in kinds]), strict=True):
        prefill, decode = _rates_of(_with_types(shape, header, types), rates)
        size = predicted_bytes(header, types)
        if size <= most_bytes:
            gain = _seconds(*before) / _seconds(prefill, decode)
            trial_s = TEXT_CHUNKS * PROMPT_TOKENS * (1 / before[0] + 1 / prefill)
            found.append(
                Forecast(kind, size, prefill / before[0], decode / before[1], gain, trial_s)
            )
    return sorted(found, key=lambda one: -one.request_gain)


async def tried(
    source: Path, folder: Path, file_type: str, options: EvaluationOptions, most_divergence: float,
    tell: Tell = lambda what, n, total: None,
) -> RequantizedFile:  # fmt: skip
    """Make the file in `folder` and measure it beside its source.

    Raises: InvalidParameter for a type that does not exist, a source of too few bits, a full disk or an
    unusable text; GGUFRefused, ModelUnusable.
    """
    target = folder / f"{file_type}.gguf"
    quantize(source, target, Recipe(file_type), n_threads=options.n_threads)
    before, after = await evaluate([target], source, replace(options, n_runs=0), tell)
    made = RequantizedFile(target, file_type, before, after)
    if made.divergence > most_divergence:
        return made
    one, other = await evaluate([target], source, replace(options, texts=()), tell)
    return replace(
        made, source=replace(before, runs=one.runs), figures=replace(after, runs=other.runs)
    )


async def each_tried(
    source: Path, folder: Path, found: Sequence[Forecast], options: EvaluationOptions,
    most_divergence: float, tell: Tell = lambda what, n, total: None,
) -> AsyncIterator[RequantizedFile]:  # fmt: skip
    """The types that are worth it, fastest first, each made and measured. Raises as `tried`."""
    for one in (f for f in found if f.request_gain >= LEAST_GAIN):
        yield await tried(source, folder, one.file_type, options, most_divergence, tell)


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
