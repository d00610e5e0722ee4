"""How many bits a weight of a model file takes, by tensor type: plain arithmetic over the file's header."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgeagent.catalog.gguf.header import Header


@dataclass(frozen=True)
class TensorBits:
    """The tensors of one file. `n_params` and `n_bytes` by tensor type, largest first."""

    n_params: dict[str, int]
    n_bytes: dict[str, int]

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors, scales included."""
        return 8 * sum(self.n_bytes.values()) / max(1, sum(self.n_params.values()))

    def described(self) -> str:
        """Such as "Q5_0 62%, Q8_0 38%": shares of the weights, without the few of norms."""
        total = sum(self.n_params.values())
        shares = {kind: n / total for kind, n in self.n_params.items()}
        return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share >= 0.005)


def tensor_bits(header: Header) -> TensorBits:
    params: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        params[tensor.type.name] += tensor.n_elements
        sizes[tensor.type.name] += tensor.n_bytes
    order = sorted(sizes, key=lambda kind: -sizes[kind])
    return TensorBits({k: params[k] for k in order}, {k: sizes[k] for k in order})
