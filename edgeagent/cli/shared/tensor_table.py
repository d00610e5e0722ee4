"""How fast this device multiplies weights of each tensor type, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from edgeagent.catalog.sizing.quantization import BYTES_PER_WEIGHT
from edgeagent.types.measurement import TensorRate


def tensor_table(rates: Mapping[str, TensorRate]) -> Table:
    """The types, fastest prompts first: 10^9 products of a weight and a token a second, in prompts, with
    four tokens in one step, and in answers."""
    table = Table(box=None, pad_edge=False)
    table.add_column("tensor type", no_wrap=True)
    for name in ("bits", "prompts, G/s", "four tokens, G/s", "answers, G/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for name, rate in sorted(rates.items(), key=lambda item: -item[1].prefill):
        table.add_row(
            name, f"{8 * BYTES_PER_WEIGHT[name]:.1f}", f"{rate.prefill / 1e9:.0f}",
            f"{rate.few / 1e9:.1f}", f"{rate.decode / 1e9:.1f}", "own kernels" if rate.is_repacked else "",
        )  # fmt: skip
    return table


def tensor_tree(rates: Mapping[str, TensorRate]) -> dict[str, Any]:
    """The same for JSON, in products and weights a second."""
    return {
        name: {
            "decode": rate.decode,
            "few": rate.few,
            "prefill": rate.prefill,
            "is_repacked": rate.is_repacked,
        }
        for name, rate in rates.items()
    }
