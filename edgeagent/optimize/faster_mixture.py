"""A mixture of tensor types with which a request takes the least time on this device, within a bound of the
KL divergence to the file that is there.

    seconds_by_type   what each matrix takes of a request in each type, by the measured rates of types
    worth_trying      the types of a matrix that are faster than all finer ones
    measured_costs    the divergence that each type of each matrix costs, by probes of groups of matrices
    fastest_within    the types of all matrices for a bound on the sum of these costs

A request is a prompt of 512 tokens with 128 more, as for uniform types (`requantization`), half of which come
in steps of a few tokens: with other answers, with drafts, or forced by a schema. Each weight takes
512 / prefill + 64 / decode + 64 / few seconds of it, with the rates of its type in weights a second; those
of the output matrix 1 / prefill instead, because of a prompt only the last token needs them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.optimize.allocation import Allocation, Option, allocate
from edgeagent.optimize.client import scoring_worker
from edgeagent.optimize.evaluate import EvaluationOptions, Tell, reference_of
from edgeagent.optimize.imatrix import add_chunk, open_config
from edgeagent.optimize.imatrix_file import ImportanceMatrix
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.quantize import quantize
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.sensitivity import (
    TensorCosts,
    TensorGroup,
    groups_of,
    kinds_for,
    mean_divergence,
    measure_costs,
    quantizable,
)
from edgeagent.types.measurement import TensorRate

OUTPUT, TABLE = "output.weight", "token_embd.weight"
# A type that is coarser than another must be faster by this.
LEAST_STEP = 1.02
# Of the tokens of an answer, those that come in steps of a few.
FEW_SHARE = 0.5
# Chunks of the text behind those that files are measured on.
CALIBRATION_CHUNKS, TUNING_CHUNKS = 8, 2
# How many neighbouring layers are probed together: the first whose probes the time suffices for.
LAYERS_TOGETHER = (5, 8, 10, 15, 20, 40, 1000)
_NANO = 10**12  # of a nat: costs as whole numbers
_TYPES = {kind.name: kind for kind in GGML_TYPES.values()}


@dataclass(frozen=True)
class MixtureCosts:
    """What is known of each matrix: `seconds` of a request by type, and what its types cost in divergence.
    `columns`: the importance matrix, float32 [n_columns] as bytes, by matrix. `scale`: what a mixture
    diverged by on the tuning text, over the sum of its costs."""

    seconds: Mapping[str, Mapping[str, float]]
    costs: tuple[TensorCosts, ...]
    columns: Mapping[str, bytes]
    scale: float = 1.0

    def fastest_within(self, most_divergence: float) -> Allocation | None:
        return fastest_within(self.costs, self.seconds, most_divergence / self.scale)

    def divergence_of(self, allocation: Allocation) -> float:
        """What an allocation is expected to diverge by."""
        return self.scale * divergence_of(self.costs, allocation)


def multiplied(header: Header) -> list[str]:
    """The matrices that tokens are multiplied with: not the token table where the output has its own."""
    able = quantizable(header)
    return [name for name in able if name != TABLE or OUTPUT not in able]


def seconds_by_type(
    header: Header, rates: Mapping[str, TensorRate], n_prompt: int, n_answer: int
) -> dict[str, dict[str, float]]:
    """Seconds of a request that each matrix takes in each type whose rates are known and that divides its
    rows. Experts are not told apart: all of them count."""
    output = OUTPUT if OUTPUT in quantizable(header) else TABLE
    shapes = {tensor.name: tensor for tensor in header.tensors}
    found = {}
    for name in multiplied(header):
        n, n_of_prompt = shapes[name].n_elements, 1 if name == output else n_prompt
        own = shapes[name].type.name
        found[name] = {
            kind: n * (n_of_prompt / rates[kind].prefill + n_answer * _token_s(rates[kind]))
            for kind in dict.fromkeys((*kinds_for(shapes[name].shape[0]), own))
            if kind in rates
        }
    return found


def _token_s(rate: TensorRate) -> float:
    """Seconds that a token of an answer takes of a weight."""
    return (1 - FEW_SHARE) / rate.decode + FEW_SHARE / (rate.few or rate.decode)


def worth_trying(seconds: Mapping[str, float]) -> list[str]:
    """The types that are faster than all of more bytes, which are finer; most bytes first."""
    kept: list[str] = []
    bytes_of = {kind: _TYPES[kind].n_bytes / _TYPES[kind].block for kind in seconds}
    for kind in sorted(seconds, key=lambda k: -bytes_of[k]):
        larger = [seconds[one] for one in kept if bytes_of[one] > bytes_of[kind]]
        if not larger or LEAST_STEP * seconds[kind] <= min(larger):
            kept.append(kind)
    return kept


def fastest_within(
    costs: Sequence[TensorCosts], seconds: Mapping[str, Mapping[str, float]], most_divergence: float
) -> Allocation | None:
    """The types with which a request takes the least time while the costs are `most_divergence` in all; None
    where there are none.

    The allocation of bytes (`allocation`) with other quantities: the divergence is what is spent, and
    seconds are what is lost.
    """
    of = {(one.name, o.kind, o.is_plain): o for one in costs for o in one.options}
    swapped = {
        one.name: [
            Option(o.kind, math.ceil(_NANO * o.cost), seconds[one.name][o.kind], o.is_plain)
            for o in one.options
            if o.kind in seconds[one.name]
        ]
        for one in costs
    }
    found = allocate(swapped, int(_NANO * most_divergence))
    if found is None:
        return None
    return Allocation({n: of[n, o.kind, o.is_plain] for n, o in found.chosen.items()})


def divergence_of(costs: Sequence[TensorCosts], allocation: Allocation) -> float:
    """The sum of the costs of an allocation."""
    chosen = allocation.chosen
    return sum(
        o.cost for one in costs for o in one.options
        if (o.kind, o.is_plain) == (chosen[one.name].kind, chosen[one.name].is_plain)
    )  # fmt: skip


async def measured_costs(
    source: Path, folder: Path, rates: Rates, options: EvaluationOptions, target: float, *,
    n_prompt: int, n_answer: int, limit_s: float, tell: Tell = lambda what, n, total: None,
) -> MixtureCosts | None:  # fmt: skip
    """Probe the matrices of a model, which is dequantized into `folder` for that, on the text behind the
    chunks of `options`. None where the text or the time is too short, or no type is faster.

    `target`: the divergence of the mixture that the sum of costs is compared with.
    """
    began = time.monotonic()
    header = read_header(source)
    seconds = seconds_by_type(header, rates.tensors, n_prompt, n_answer)
    own = {tensor.name: tensor.type.name for tensor in header.tensors}
    kinds = {
        name: list(dict.fromkeys([*worth_trying(given), *([own[name]] if own[name] in given else [])]))
        for name, given in seconds.items()
    }  # fmt: skip
    if not any(kinds.values()):
        return None
    reference = folder / "reference.F16.gguf"
    quantize(source, reference, Recipe("F16"), n_threads=options.n_threads)
    try:
        return await _probed(
            reference, folder, options, seconds, kinds, own, target, began + limit_s, tell
        )
    finally:
        reference.unlink(missing_ok=True)


async def _probed(
    reference: Path, folder: Path, options: EvaluationOptions, seconds: Mapping[str, Mapping[str, float]],
    kinds: Mapping[str, Sequence[str]], own: Mapping[str, str], target: float, until_s: float, tell: Tell,
) -> MixtureCosts | None:  # fmt: skip
    skipped = options.max_chunks or 0
    header = read_header(reference)
    async with scoring_worker(open_config(reference, options.n_ctx, options.n_threads)) as client:
        behind = (await replace(options, max_chunks=None).chunks_of(client))[skipped:]
        tuning, calibration = behind[:TUNING_CHUNKS], behind[TUNING_CHUNKS:][:CALIBRATION_CHUNKS]
        if not calibration:
            return None
        began = time.monotonic()
        known = await reference_of(client, tuning)
        probe_s = time.monotonic() - began
        left_s = until_s - time.monotonic() - probe_s * (len(calibration) / len(tuning) + 2)
        groups = _groups_for(header, list(seconds), 0.7 * left_s / max(1e-6, probe_s))
        if groups is None:
            return None
        matrix = ImportanceMatrix({}, {}, 0, options.n_ctx)
        for chunk in calibration:
            await add_chunk(matrix, client, chunk)
            tell("importance", 1, len(calibration))
        columns = {name: values.tobytes() for name, values in matrix.columns().items()}
        await client.set_importance(columns)
        journal = Journal(folder / "probes.jsonl", "mixture")
        measured = await measure_costs(client, header, known, groups, journal, tell, kinds=kinds)
        costs = tuple(_with_own(one, kinds[one.name], own[one.name]) for one in measured)
        found = MixtureCosts(seconds, costs, columns)
        trial = found.fastest_within(target)
        if trial is None or (expected := found.divergence_of(trial)) <= 0:
            return found
        await client.alter({n: k for n, k in trial.kinds.items() if k != own[n]}, plain=trial.plain)
        # Costs of single groups need not add up.
        return replace(found, scale=max(0.5, await mean_divergence(client, known) / expected))


def _groups_for(header: Header, names: Sequence[str], most: float) -> list[TensorGroup] | None:
    """The finest groups of these matrices of which there are `most` at most, or None."""
    for n_layers in LAYERS_TOGETHER:
        found = []
        for group in groups_of(header, n_layers):
            if tensors := tuple(name for name in group.tensors if name in names):
                found.append(TensorGroup(group.name, tensors))
        if len(found) <= most:
            return found
    return None


def _with_own(costs: TensorCosts, kinds: Sequence[str], own: str) -> TensorCosts:
    """Only these types; the one that the matrix has costs nothing, because it is copied."""
    options = [o for o in costs.options if o.kind in kinds]
    return replace(
        costs,
        options=tuple(replace(o, cost=0.0) if o.kind == own else o for o in options),
    )
