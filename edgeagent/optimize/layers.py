"""Which whole layers a model can do without, measured one after another.

A layer whose attention output and feed-forward output are zero adds nothing to the residual stream, which is
the same as leaving it out. So each layer is silenced in memory, the divergence is measured, and the one that
is missed least is left out; then the rest are measured again without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.catalog.gguf.header import Header
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient
from edgeagent.optimize.evaluate import Reference, Tell
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.sensitivity import mean_divergence

ZERO = "ZERO"  # as in `AlterWeights`
_OUTPUTS = ("attn_output.weight", "ffn_down.weight")


@dataclass(frozen=True)
class DroppedLayer:
    """A layer that was left out, and the divergence without it and all before it."""

    layer: int
    kld: float


async def least_missed(
    client: ScoringClient,
    header: Header,
    reference: Reference,
    n_dropped: int,
    journal: Journal,
    *,
    max_kld: float | None = None,
    tell: Tell = lambda what, n, total: None,
) -> list[DroppedLayer]:
    """Up to `n_dropped` layers in the order in which they are left out; stops before `max_kld` is passed.

    Raises: InvalidParameter for an architecture whose layers cannot be silenced.
    """
    layers = _layers(header)
    if not 0 < n_dropped < len(layers):
        raise InvalidParameter(
            f"{n_dropped} layers are to be left out, the model has {len(layers)}: choose 1 to "
            f"{len(layers) - 1}."
        )
    dropped: list[DroppedLayer] = []
    total = sum(len(layers) - i for i in range(n_dropped))
    for _ in range(n_dropped):
        out = [one.layer for one in dropped]
        found = []
        for layer in layers:
            if layer not in out:
                found.append((await _divergence(client, reference, [*out, layer], journal), layer))
                tell("layers", 1, total)
        kld, layer = min(found)
        if max_kld is not None and kld > max_kld:
            break
        dropped.append(DroppedLayer(layer, kld))
    await client.alter({})
    return dropped


def _layers(header: Header) -> list[int]:
    names = {tensor.name for tensor in header.tensors}
    found = (name.split(".") for name in names if name.startswith("blk."))
    numbers = sorted({int(parts[1]) for parts in found if parts[1].isdigit()})
    for layer in numbers:
        if any(f"blk.{layer}.{output}" not in names for output in _OUTPUTS):
            raise InvalidParameter(
                f"{header.path.name} has other layers than attention and feed-forward: its layers cannot be "
                "left out one by one."
            )
    return numbers


async def _divergence(
    client: ScoringClient, reference: Reference, layers: list[int], journal: Journal
) -> float:
    key = f"layers {sorted(layers)}"
    values = journal.get(key)
    if values is None:
        await client.alter({f"blk.{i}.{output}": ZERO for i in layers for output in _OUTPUTS})
        values = {"kld": await mean_divergence(client, reference)}
        journal.add(key, values)
    return values["kld"]
