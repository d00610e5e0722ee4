"""Which matrices stay F16 where no type needs the bytes."""

from __future__ import annotations

import pytest

from edgeagent.optimize.allocation import Allocation, Option
from edgeagent.optimize.protocol import Errors
from edgeagent.optimize.sensitivity import PROBE, TensorCosts, _costs
from edgeagent.optimize.spare_bytes import with_spare_bytes

# Three matrices of 320 weights, of 200 bytes in Q4_1 and 640 in F16, and one of half of that.
N = {"a": 320, "b": 320, "c": 320, "d": 160}
GAINS = {"a": 0.1, "b": 0.3, "c": 0.0, "d": 0.2}
CHOSEN = Allocation({name: Option("Q4_1", 200 * n // 320, 0.0) for name, n in N.items()})
COSTS = [TensorCosts(name, (CHOSEN.chosen[name],), "Q4_1", GAINS[name]) for name in N]


@pytest.mark.parametrize(
    ("max_bytes", "unrounded"),
    [(700, None), (705, None), (900, None), (920, "d"), (1140, "d"), (1360, "bd"), (9999, "abd")],
)
def test_matrices_stay_f16_in_the_order_of_what_each_byte_saves(max_bytes, unrounded):
    found = with_spare_bytes(CHOSEN, COSTS, N, max_bytes)
    kinds = {} if found is None else found.kinds
    assert "".join(n for n, kind in kinds.items() if kind == "F16") == (unrounded or "")
    assert found is None or (found.n_bytes <= max_bytes and set(kinds) == set(N))


def test_rounded_activations_cost_what_eight_bits_do_beside_the_probe():
    probe = Errors((4.0,), (4.0,), (0.01,), (0.007,))
    eight = Errors((0.1,), (0.1,), (3e-5,), (2.9e-5,))
    (one,) = _costs({"a": {PROBE: probe, "Q8_0": eight}}, {"a": (32, 10)}, 0.5)
    assert one.rounded_activations == pytest.approx(0.5 * 2.9e-5 / 0.01)
