"""A sentence encoder of a few megabytes, cut out of a published BERT encoder: some of its word pieces and
some of its layers, with the weights that these have there.

Its matrices are trained as they will be stored, in 4 bits, so that quantizing them costs nothing afterwards.

Sources: dropping layers of a teacher: Sajjad et al. 2020, arXiv:2004.03844; training through rounding: Bengio
et al. 2013, arXiv:1308.3432, Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeagent.forge.domain.trunk_file import Floats

# Norms of BERT, and the numbers of a block of ggml's Q4_0.
EPS, BLOCK = 1e-12, 32


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a BERT encoder."""

    n_vocab: int
    n_embd: int
    n_layers: int
    n_head: int
    n_ff: int
    n_ctx: int


class _Rounded(torch.autograd.Function):
    """The nearest values that Q4_0 can store; gradients pass unchanged."""

    @staticmethod
    def forward(ctx: object, weight: Tensor) -> Tensor:
        return q4_0(weight)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def q4_0(weight: Tensor) -> Tensor:
    """A matrix as ggml stores it in Q4_0: blocks of 32 numbers with one F16 scale, 16 levels each."""
    blocks = weight.detach().reshape(-1, BLOCK)
    at = blocks.abs().argmax(1, keepdim=True)
    scale = blocks.gather(1, at) / -8
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    levels = (blocks * inverse + 8.5).floor_().clamp_(0, 15) - 8
    return (levels * scale.half().float()).reshape(weight.shape)


def rounded(weight: Tensor) -> Tensor:
    out: Tensor = _Rounded.apply(weight)
    return out


class RoundedLinear(nn.Linear):
    """A linear layer that multiplies by what will be stored of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, rounded(self.weight), self.bias)


class _Layer(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        n = shape.n_embd
        self.n_head = shape.n_head
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            RoundedLinear(n, n) for _ in range(4)
        )
        self.attn_output_norm = nn.LayerNorm(n, eps=EPS)
        self.ffn_up, self.ffn_down = RoundedLinear(n, shape.n_ff), RoundedLinear(shape.n_ff, n)
        self.layer_output_norm = nn.LayerNorm(n, eps=EPS)

    def forward(self, x: Tensor, is_text: Tensor) -> Tensor:
        n_batch, n_tokens, _ = x.shape
        q, k, v = (
            part(x).view(n_batch, n_tokens, self.n_head, -1).transpose(1, 2)
            for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~is_text[:, None, None, :], -torch.inf)
        out = torch.softmax(scores, -1).type_as(v) @ v
        x = self.attn_output_norm(x + self.attn_output(out.transpose(1, 2).reshape(x.shape)))
        normed: Tensor = self.layer_output_norm(
            x + self.ffn_down(F.gelu(self.ffn_up(x), approximate="tanh"))
        )
        return normed


class Student(nn.Module):
    """Tokens to a sentence vector, the mean of the last layer's states. Names of weights are those of a GGUF
    file of the architecture `bert`, but for `blk`."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.position_embd = nn.Embedding(shape.n_ctx, shape.n_embd)
        self.token_types = nn.Parameter(torch.zeros(shape.n_embd))
        self.token_embd_norm = nn.LayerNorm(shape.n_embd, eps=EPS)
        self.blk = nn.ModuleList(_Layer(shape) for _ in range(shape.n_layers))
        self.hint: nn.Linear | None = None

    def forward(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """float [n_batch, n_embd] of tokens: int64 [n_batch, n_tokens], padded at the end;
        is_text: bool of the same shape."""
        words = rounded(F.embedding(tokens, self.token_embd.weight))
        x = self.token_embd_norm(
            words + self.position_embd.weight[: tokens.shape[1]] + self.token_types
        )
        for layer in self.blk:
            x = layer(x, is_text)
        weight = is_text.unsqueeze(-1).float()
        mean: Tensor = (x.float() * weight).sum(1) / weight.sum(1)
        return mean


def cut_out(
    tensors: Mapping[str, Floats], pieces: Sequence[int], layers: Sequence[int], n_ctx: int
) -> Student:
    """A student with the rows `pieces` and the `layers` of an encoder, whose tensors are named as in GGUF."""
    n_embd = tensors["token_embd.weight"].shape[1]
    n_ff = tensors["blk.0.ffn_up.weight"].shape[0]
    student = Student(EncoderShape(len(pieces), n_embd, len(layers), n_embd // 32, n_ff, n_ctx))
    state = {}
    for name in student.state_dict():
        if name.startswith("blk."):
            _, number, rest = name.split(".", 2)
            state[name] = tensors[f"blk.{layers[int(number)]}.{rest}"]
    state["token_embd.weight"] = tensors["token_embd.weight"][np.array(pieces)]
    state["position_embd.weight"] = tensors["position_embd.weight"][:n_ctx]
    state["token_types"] = tensors["token_types.weight"][0]
    for kind in ("weight", "bias"):
        state[f"token_embd_norm.{kind}"] = tensors[f"token_embd_norm.{kind}"]
    student.load_state_dict(
        {k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()}
    )
    return student
