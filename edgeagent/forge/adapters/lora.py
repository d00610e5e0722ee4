"""Low-rank changes of the matrices of a frozen decoder, and the GGUF file that llama.cpp loads them from.

y = x W' + (alpha / rank) x A' B', with A [rank, n_in] random and B [n_out, rank] zero at first, so that an
adapter begins as no change.

Source: Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeagent.errors import ForgeFailed
from edgeagent.forge.adapters.base_model import MATRICES, BaseModel
from edgeagent.forge.decoder import Block


class LoraLinear(nn.Module):
    """A frozen matrix with a change of `rank`."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        change = F.linear(F.linear(x, self.down), self.up)
        added: Tensor = self.base(x) + self.scale * change
        return added


class Adapter:
    """The changes of all matrices of a model's blocks. `alpha` is that of the file."""

    def __init__(self, model: BaseModel, rank: int, alpha: float) -> None:
        self.rank, self.alpha = rank, alpha
        self.layers: dict[str, LoraLinear] = {}
        for number, block in enumerate(model.decoder.blocks):
            assert isinstance(block, Block)
            for theirs, ours in MATRICES.items():
                place, _, name = ours.rpartition(".")
                owner = block.get_submodule(place) if place else block
                made = LoraLinear(getattr(owner, name), rank, alpha)
                setattr(owner, name, made)
                self.layers[f"blk.{number}.{theirs}.weight"] = made

    def parameters(self) -> Iterator[nn.Parameter]:
        for layer in self.layers.values():
            yield layer.down
            yield layer.up

    def state(self) -> dict[str, Tensor]:
        """A copy of the values, by the names of the file."""
        found = {}
        for name, layer in self.layers.items():
            found[f"{name}.lora_a"] = layer.down.detach().clone()
            found[f"{name}.lora_b"] = layer.up.detach().clone()
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.down.copy_(state[f"{name}.lora_a"])
                layer.up.copy_(state[f"{name}.lora_b"])


def write_adapter(path: Path, state: dict[str, Tensor], alpha: float, name: str) -> None:
    """The file that `edgeagent models adapter add` installs. Raises: ForgeFailed for values that are none;
    OSError."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, values in state.items():
        data = values.float().numpy()
        if not np.isfinite(data).all() or np.abs(data).max(initial=0) > np.finfo(np.float16).max:
            raise ForgeFailed(f"The training diverged ({key}): train with a lower --rate.")
        writer.add_tensor(key, data.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
