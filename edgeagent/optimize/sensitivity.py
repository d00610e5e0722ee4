"""What each tensor costs in KL divergence when only it is rounded, for every type that it may get.

A group of tensors (one kind of matrix in some neighbouring layers) is rounded to a coarse type, the probe,
and the divergence from the unrounded model is measured. The divergence grows with the square of the error, so
it is divided among the tensors of the group by their errors, and carried over to the other types by theirs.
The errors are weighted by an importance matrix where there is one. Each type has two options then: rounded
with that matrix, and without it. Weights that lie on the grid of a type already (those of a dequantized file)
have no error there, often only in one of the two ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import Header
from edgeagent.optimize.allocation import Option
from edgeagent.optimize.client import ScoringClient
from edgeagent.optimize.divergence import chunk_divergence
from edgeagent.optimize.evaluate import Reference, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.protocol import Errors
from edgeagent.optimize.quantize import tensor_bytes

# Types worth choosing from, for rows of multiples of 256 and of 32. The coarsest of each is the probe.
SUPER_BLOCK_KINDS = ("Q2_K", "IQ3_S", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
BLOCK_KINDS = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
PROBE = "Q4_0"
# Errors are estimated by every so many-th row of a large matrix.
MOST_ROWS = 512
# A type whose error is below this share of that of ordinary weights: the source lies on its grid. Weights
# that were rounded to Q4_1 lose 0.05 of the ordinary with Q4_K, and 0.8 with Q5_0 (SmolLM2-135M).
ON_GRID = 0.01
_TYPES = {kind.name: kind for kind in GGML_TYPES.values()}


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are probed together."""

    name: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class TensorCosts:
    """The options of one tensor. `grid`: the smallest type whose grid the source lies on, if any.
    `rounded_activations`: what each quantized type costs beside, by rounding activations to 8 bits."""

    name: str
    options: tuple[Option, ...]
    grid: str | None
    rounded_activations: float = 0.0


def quantizable(header: Header) -> list[str]:
    """The matrices that llama.cpp quantizes, as `tensor_allows_quantization` of llama-quant.cpp says, and
    whose rows are whole blocks."""
    return [
        t.name for t in header.tensors
        if len(t.shape) >= 2 and t.shape[1] > 1 and t.shape[0] % 32 == 0 and t.name.endswith(".weight")
        and not any(part in t.name for part in ("_norm.", "ffn_gate_inp", "ssm_conv1d", "position_embd"))
    ]  # fmt: skip


def groups_of(header: Header, n_layers_together: int) -> list[TensorGroup]:
    """One group for each kind of matrix and some neighbouring layers, and one for each other matrix."""
    groups: dict[str, list[str]] = {}
    for name in quantizable(header):
        head, _, rest = name.partition(".")
        layer, _, kind = rest.partition(".")
        band = f"{kind} {int(layer) // n_layers_together:02d}" if head == "blk" else name
        groups.setdefault(band, []).append(name)
    return [TensorGroup(name, tuple(tensors)) for name, tensors in sorted(groups.items())]


def kinds_for(n_columns: int, allowed: Sequence[str] | None = None) -> list[str]:
    """The types that a matrix with rows of `n_columns` may get."""
    kinds = [*BLOCK_KINDS, *(SUPER_BLOCK_KINDS if n_columns % 256 == 0 else ())]
    return [
        k for k in dict.fromkeys(kinds)
        if n_columns % _TYPES[k].block == 0 and (allowed is None or k in allowed)
    ]  # fmt: skip


async def mean_divergence(client: ScoringClient, reference: Reference) -> float:
    """The mean divergence of a loaded model as it is now altered."""
    parts = []
    for chunk in reference.chunks:
        scores = await client.score(chunk.tokens, ids=chunk.ids.tobytes())
        parts.append(chunk_divergence(chunk, scores).kld)
    return float(np.concatenate(parts).mean())


async def measure_costs(
    client: ScoringClient,
    header: Header,
    reference: Reference,
    groups: Sequence[TensorGroup],
    journal: Journal,
    tell: Tell = lambda what, n, total: None,
    *,
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> list[TensorCosts]:
    """Probe every group and estimate the cost of each type of its tensors, or of those of `kinds`."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    costs: list[TensorCosts] = []
    for group in groups:
        key = f"probe {group.name}"
        values = journal.get(key, "kld")
        if values is None:
            await client.alter(dict.fromkeys(group.tensors, PROBE))
            values = {"kld": await mean_divergence(client, reference)}
            journal.add(key, values)
        found = {
            name: await _errors(
                client, name, shapes[name], journal, kinds[name] if kinds is not None else None
            )
            for name in group.tensors
        }
        costs += _costs(found, shapes, values["kld"])
        tell("sensitivity", 1, len(groups))
    await client.alter({})
    return costs


async def _errors(
    client: ScoringClient, name: str, shape: tuple[int, ...], journal: Journal,
    wanted: Sequence[str] | None,
) -> dict[str, Errors]:  # fmt: skip
    """The errors of each type of one tensor, under the name of the type; of all types, or of those wanted."""
    kinds = list(
        dict.fromkeys((PROBE, "Q8_0", *(kinds_for(shape[0]) if wanted is None else wanted)))
    )
    parts = ("", " plain", " relative", " grid")
    values = journal.get(f"errors {name}", *(f"{kind}{part}" for kind in kinds for part in parts))
    if values is None:
        stride = max(1, shape[1] // MOST_ROWS)
        told = await client.rounding_errors(name, kinds, stride)
        values = {}
        for kind, error, plain, relative, grid in zip(
            kinds, told.errors, told.plain, told.relative, told.grids, strict=True
        ):
            values |= {kind: error, f"{kind} plain": plain}
            values |= {f"{kind} relative": relative, f"{kind} grid": grid}
        journal.add(f"errors {name}", values)
    return {kind: Errors(*((values[f"{kind}{part}"],) for part in parts)) for kind in kinds}


def _costs(
    found: Mapping[str, Mapping[str, Errors]],
    shapes: Mapping[str, tuple[int, ...]],
    kld: float,
) -> list[TensorCosts]:
    """Divide the divergence of a group among its tensors and types, in proportion to their errors."""
    total = sum(errors[PROBE].errors[0] for errors in found.values())
    rate = max(kld, 0.0) / total if total > 0 else 0.0
    costs = []
    for name, errors in found.items():
        n = 1
        for length in shapes[name]:
            n *= length
        options = tuple(
            Option(kind, tensor_bytes(n, kind), rate * error, is_plain)
            for kind, e in errors.items()
            for is_plain, error in ((False, e.errors[0]), (True, e.plain[0]))
        )
        costs.append(TensorCosts(name, options, grid_of(errors), _by_activations(errors, rate)))
    return costs


def _by_activations(errors: Mapping[str, Errors], rate: float) -> float:
    """The divergence by activations that are rounded as Q8_0 rounds ordinary numbers."""
    probe = errors[PROBE]
    return rate * probe.errors[0] * errors["Q8_0"].grids[0] / max(1e-30, probe.relative[0])


def grid_of(errors: Mapping[str, Errors]) -> str | None:
    """The smallest type whose grid a tensor lies on already: the source was rounded to it before."""
    on_grid = [kind for kind, e in errors.items() if e.relative[0] < ON_GRID * e.grids[0]]
    return min(
        on_grid, key=lambda kind: (_TYPES[kind].n_bytes / _TYPES[kind].block, kind), default=None
    )
