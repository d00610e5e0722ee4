"""What the bytes that no type needs are good for: matrices that stay F16.

A product with a quantized matrix rounds the activations to 8 bits as well, whatever the type is; one with an
F16 matrix does not. Where the source lies on the grid of its types, only that rounding is left to gain. Both
roundings disturb a product alike, so its divergence follows from the probe of the matrix: what the probe
cost, times the square of the error of 8 bits over that of the probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeagent.optimize.allocation import Allocation, Option, allocate
from edgeagent.optimize.quantize import tensor_bytes
from edgeagent.optimize.sensitivity import TensorCosts

UNROUNDED = "F16"
# Less than this share of a bound is no spare.
LEAST_SHARE = 0.01


def with_spare_bytes(
    allocation: Allocation,
    costs: Sequence[TensorCosts],
    n_elements: Mapping[str, int],
    max_bytes: int,
) -> Allocation | None:
    """The allocation with as many matrices F16 as fit into `max_bytes`, those first that gain most by it.

    None where nothing is to spare, or no matrix fits.
    """
    if max_bytes - allocation.n_bytes < LEAST_SHARE * max_bytes:
        return None
    options = {}
    for one in costs:
        chosen = allocation.chosen[one.name]
        finer = Option(UNROUNDED, tensor_bytes(n_elements[one.name], UNROUNDED), 0.0)
        options[one.name] = [replace(chosen, cost=one.rounded_activations), finer]
    found = allocate(options, max_bytes)
    assert found is not None
    return found if UNROUNDED in found.kinds.values() else None
