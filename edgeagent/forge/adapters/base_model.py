"""A chat model of the llama architecture as a torch decoder, from its GGUF file, whatever its types are.

q and k stay in the order of the file, which `forge.decoder` rotates in the same pairs as llama.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from edgeagent.errors import ForgeFailed
from edgeagent.forge.decoder import Block, Decoder, DecoderShape

# The matrices of a block: their names in a file, and those of the decoder's modules.
MATRICES = {
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_output": "attn.output",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
_NORMS = {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm"}
_PARTS = MATRICES | _NORMS
_OTHERS = ("token_embd.weight", "output_norm.weight", "output.weight")


class BaseModel(nn.Module):
    """The frozen decoder, and the matrix of its output where that is not the embedding's."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        """Raises: ForgeFailed for a model of another architecture."""
        super().__init__()
        try:
            reader = gguf.GGUFReader(path)
        except (OSError, ValueError) as exc:
            raise ForgeFailed(
                f"{path} is not a GGUF file ({exc}): name an installed model."
            ) from exc
        tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
        shape = _shape(reader.fields, tensors, n_ctx)
        _check_names(tensors, shape.n_layers)
        with torch.device("meta"):
            self.decoder = Decoder(shape)
        self.decoder.to_empty(device="cpu")
        self.decoder.rotation = _rotation(shape)
        with torch.no_grad():
            for block, number in zip(self.decoder.blocks, range(shape.n_layers), strict=True):
                assert isinstance(block, Block)
                for theirs, ours in _PARTS.items():
                    parameter = block.get_submodule(ours).weight
                    assert isinstance(parameter, nn.Parameter)
                    parameter.copy_(_values(tensors, f"blk.{number}.{theirs}.weight"))
            self.decoder.token_embd.weight.copy_(_values(tensors, "token_embd.weight"))
            self.decoder.output_norm.weight.copy_(_values(tensors, "output_norm.weight"))
        self.output: Tensor | None = None
        if "output.weight" in tensors:
            self.output = _values(tensors, "output.weight")
        self.requires_grad_(False)

    def logits(self, hidden: Tensor) -> Tensor:
        if self.output is None:
            return self.decoder.logits(hidden)
        return nn.functional.linear(hidden, self.output)


def _shape(fields: Any, tensors: dict[str, Any], n_ctx: int) -> DecoderShape:
    def of(key: str, default: Any = None) -> Any:
        return fields[key].contents() if key in fields else default

    architecture = of("general.architecture")
    if architecture != "llama":
        raise ForgeFailed(
            f"The model is of the architecture {architecture!r}, adapters are trained for 'llama': choose "
            "another model, such as smollm2-135m-instruct."
        )
    n_embd, n_head = int(of("llama.embedding_length")), int(of("llama.attention.head_count"))
    width = n_embd // n_head
    if of("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in tensors:
        raise ForgeFailed(
            "The model scales its rotary positions, which is not trained: choose another."
        )
    if (
        of("llama.rope.dimension_count", width) != width
        or of("llama.attention.key_length", width) != width
    ):
        raise ForgeFailed("The model's heads have another width than usual: choose another model.")
    return DecoderShape(
        n_vocab=int(tensors["token_embd.weight"].shape[1]),
        n_embd=n_embd,
        n_layers=int(of("llama.block_count")),
        n_head=n_head,
        n_head_kv=int(of("llama.attention.head_count_kv", n_head)),
        n_ff=int(of("llama.feed_forward_length")),
        n_ctx=n_ctx,
        rope_base=float(of("llama.rope.freq_base", 10_000.0)),
        norm_eps=float(of("llama.attention.layer_norm_rms_epsilon", 1e-5)),
    )


def _check_names(tensors: dict[str, Any], n_layers: int) -> None:
    known = {f"blk.{n}.{part}.weight" for n in range(n_layers) for part in _PARTS} | set(_OTHERS)
    unknown = sorted(set(tensors) - known)
    missing = sorted(known - set(tensors) - {"output.weight"})
    if unknown or missing:
        what = f"has the tensor {unknown[0]!r}" if unknown else f"lacks the tensor {missing[0]!r}"
        raise ForgeFailed(f"The model {what}, so that it is not computed as usual: choose another.")


def _rotation(shape: DecoderShape) -> Tensor:
    half = torch.arange(0, shape.head_dim, 2).double() / shape.head_dim
    angles = torch.outer(torch.arange(shape.n_ctx).double(), shape.rope_base**-half)
    return torch.stack((angles.cos(), angles.sin())).float()


def _values(tensors: dict[str, Any], name: str) -> Tensor:
    tensor = tensors[name]
    try:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as exc:
        raise ForgeFailed(
            f"The model stores {name!r} as {tensor.tensor_type.name}, which is not read: install it in "
            "another quantization."
        ) from exc
    return torch.from_numpy(np.array(values, np.float32))
