"""How fast this device decodes with each tensor type, timed on matrices of a model's shapes.

The file of a timing is the model with zeros as weights, all of its matrices in one type: kernels take as
long, whatever the values are. It is sparse, so that it is written at once, and nothing needs to be quantized.
The time of a token in a file of several types is the mean of theirs, each by its share of the weights. What
does not depend on the type (attention, norms, threads that wait for each other) is in all of them, so that it
counts once.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import Header, TensorInfo, read_header
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.speed import Rates, decode_step_s
from edgeagent.optimize.decode_rates import QUIET_RUNS, timed_decode
from edgeagent.optimize.evaluate import PREFILL_TOKENS, EvaluationOptions, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.quantize import FIXED_BYTES, entry_bytes, padded, tensor_bytes
from edgeagent.optimize.sensitivity import quantizable

# In place of types that the rows of a matrix are no multiple of.
FALLBACK = "Q8_0"
LEAST_S = 1e-9
_TYPES = {kind.name: (number, kind) for number, kind in GGML_TYPES.items()}


@dataclass(frozen=True)
class TypeSpeeds:
    """`token_s`: seconds of a token if all matrices had a type. `shares`: of the weights, by matrix.
    `others_cores`: what other programs used at most while a type was timed; 0 where all found quiet runs."""

    token_s: Mapping[str, float]
    shares: Mapping[str, float]
    others_cores: float = 0.0

    def seconds(self, types: Mapping[str, str]) -> float | None:
        """Seconds of a token in a file of these types; None where one was not timed."""
        kinds = [(share, types.get(name, "")) for name, share in self.shares.items()]
        if any(kind not in self.token_s for _, kind in kinds):
            return None
        return sum(share * self.token_s[kind] for share, kind in kinds)


def speeds_of(header: Header, token_s: Mapping[str, float]) -> TypeSpeeds:
    counts = {tensor.name: tensor.n_elements for tensor in _multiplied(header)}
    total = sum(counts.values())
    return TypeSpeeds(token_s, {name: n / total for name, n in counts.items()})


async def timed_speeds(
    reference: Path, kinds: Iterable[str], folder: Path, evaluation: EvaluationOptions,
    journal: Journal | None = None, tell: Tell = lambda what, n, total: None, *, time_again: bool = False,
) -> TypeSpeeds:  # fmt: skip
    """Time each of these types on this device; `folder` holds one file at a time. `time_again`: also those
    again that the journal has as timed beside other programs."""
    header = read_header(reference)

    others: list[float] = [0.0]

    async def token_s(kind: str) -> float:
        key = f"undisturbed {kind}"
        values = journal.get(key, "token_s", "others_cores") if journal else None
        if values is None or (time_again and values["others_cores"] > 0):
            path = folder / f".zeros-{kind}.gguf"
            try:
                write_zeros(header, path, kind)
                rate = await timed_decode(path, evaluation, QUIET_RUNS)
                values = {"token_s": 1 / rate.tok_s, "others_cores": rate.others_cores}
            finally:
                path.unlink(missing_ok=True)
            if journal:
                journal.add(key, values)
        others.append(values["others_cores"])
        tell("speed of types", 1, len(wanted))
        return values["token_s"]

    wanted = [FALLBACK, *sorted(set(kinds) - {FALLBACK})]
    found = {kind: await token_s(kind) for kind in wanted}
    return replace(speeds_of(header, unmixed(header, found)), others_cores=max(others))


def predicted_speeds(
    reference: Path, kinds: Iterable[str], rates: Rates, depth: int = PREFILL_TOKENS
) -> TypeSpeeds:
    """The same for another device, by the formulas of `catalog/sizing`."""
    header, shape = read_header(reference), from_facts(inspect_apart(reference))

    def token_s(kind: str) -> float:
        per_weight = _TYPES[kind][1].n_bytes / _TYPES[kind][1].block
        table = int(
            shape.embedding_bytes / (shape.weights_bytes or 1) * shape.n_params * per_weight
        )
        changed = replace(
            shape, bytes_by_type={kind: int(shape.n_params * per_weight)}, embedding_type=kind,
            embedding_bytes=table,
        )  # fmt: skip
        return decode_step_s(changed, rates, depth=depth)

    return speeds_of(header, {kind: token_s(kind) for kind in kinds})


def unmixed(header: Header, timed: Mapping[str, float]) -> dict[str, float]:
    """The time of each type alone, where its file had `FALLBACK` in the matrices that it does not suit."""
    able = _multiplied(header)
    total = sum(t.n_elements for t in able)
    found = {}
    for kind, token_s in timed.items():
        suited = sum(t.n_elements for t in able if _suits(t, kind))
        share = suited / total
        if share > 0:
            found[kind] = max(LEAST_S, (token_s - (1 - share) * timed[FALLBACK]) / share)
    return found


def write_zeros(header: Header, path: Path, kind: str) -> None:
    """The model with zeros as weights, its matrices in one type."""
    able = set(quantizable(header))
    kinds = {
        t.name: (kind if _suits(t, kind) else FALLBACK) if t.name in able else t.type.name
        for t in header.tensors
    }
    n_keys = header.end - FIXED_BYTES - sum(map(entry_bytes, header.tensors))
    with header.path.open("rb") as source:
        keys = source.read(FIXED_BYTES + n_keys)
    entries, offset = bytearray(), 0
    for tensor in header.tensors:
        name = tensor.name.encode()
        entries += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape))
        entries += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        entries += struct.pack("<IQ", _TYPES[kinds[tensor.name]][0], offset)
        offset += tensor_bytes(tensor.n_elements, kinds[tensor.name])
    with path.open("wb") as file:
        file.write(keys + entries)
        os.truncate(file.fileno(), padded(len(keys) + len(entries)) + offset)


def _multiplied(header: Header) -> list[TensorInfo]:
    """The matrices that each token is multiplied with: not the token table where the output has its own."""
    able = set(quantizable(header))
    if "output.weight" in able:
        able.discard("token_embd.weight")
    return [tensor for tensor in header.tensors if tensor.name in able]


def _suits(tensor: TensorInfo, kind: str) -> bool:
    return tensor.shape[0] % _TYPES[kind][1].block == 0
