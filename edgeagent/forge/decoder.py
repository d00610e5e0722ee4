"""A decoder of the llama architecture, compatible with llama.cpp.

RMSNorm before each half of a block, rotary positions on adjacent pairs (x0 x1, x2 x3, ..., as in GGUF
files of this architecture), grouped-query attention, SwiGLU, one matrix for embedding and output.

Sources: Touvron et al. 2023, arXiv:2302.13971; Su et al. 2021, arXiv:2104.09864; Ainslie et al. 2023,
arXiv:2305.13245; Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder. `n_ff` is the width of the feed-forward layer; `n_ctx` the longest sequence."""

    n_vocab: int
    n_embd: int
    n_layers: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_ctx: int = 512
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def n_params(self) -> int:
        attention = self.n_embd * self.head_dim * 2 * (self.n_head + self.n_head_kv)
        block = attention + 3 * self.n_embd * self.n_ff + 2 * self.n_embd
        return self.n_vocab * self.n_embd + self.n_layers * block + self.n_embd


class SharedDropout(nn.Module):
    """Dropout of the same dimensions at every token of a text: a mask [n_batch, 1, n_embd], which costs
    next to nothing to draw.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[0], 1, x.shape[2], dtype=torch.float32) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        n_kv = shape.n_head_kv * shape.head_dim
        self.q = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.k = nn.Linear(shape.n_embd, n_kv, bias=False)
        self.v = nn.Linear(shape.n_embd, n_kv, bias=False)
        self.output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """x: float [n_batch, n_tokens, n_embd]; rotation: float32 [2, n_tokens, head_dim / 2]."""
        n_batch, n_tokens, _ = x.shape
        q, k, v = (
            project(x).view(n_batch, n_tokens, -1, self.shape.head_dim).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        n_repeats = self.shape.n_head // self.shape.n_head_kv
        k, v = (t.repeat_interleave(n_repeats, dim=1) for t in (_rotated(k, rotation), v))
        out = _attended(_rotated(q, rotation), k, v)
        merged = out.transpose(1, 2).reshape(n_batch, n_tokens, -1)
        projected: Tensor = self.output(merged)
        return projected


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, all float [n_batch, n_head, n_tokens, head_dim]. Not torch's fused kernel, which
    takes half of a training step on a CPU for texts as short as these."""
    n_tokens, head_dim = q.shape[-2:]
    scores = (q @ k.transpose(-1, -2)).float() * head_dim**-0.5
    is_later = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
    weights = torch.softmax(scores.masked_fill(is_later, -torch.inf), -1)
    attended: Tensor = weights.type_as(v) @ v
    return attended


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.flatten(-2).type_as(x)


class Block(nn.Module):
    def __init__(self, shape: DecoderShape, dropout: float) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.attn = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)
        self.drop = SharedDropout(dropout)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.attn_norm(x), rotation))
        inner = self.ffn_norm(x)
        added: Tensor = self.drop(self.down(F.silu(self.gate(inner)) * self.up(inner)))
        return x + added


class Decoder(nn.Module):
    """Tokens to hidden states; call `logits` only for the states that need them, few of a prompt."""

    def __init__(self, shape: DecoderShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layers))
        self.output_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.drop = SharedDropout(dropout)
        self.hint: nn.Linear | None = None
        half = torch.arange(0, shape.head_dim, 2).double() / shape.head_dim
        angles = torch.outer(torch.arange(shape.n_ctx).double(), shape.rope_base**-half)
        self.register_buffer(
            "rotation",
            torch.stack((angles.cos(), angles.sin())).float(),
            persistent=False,
        )
        self.rotation: Tensor
        self._begin()

    def hasten(self) -> bool:
        """Compile the blocks with torch: a step takes half the time, but the first of each shape half a
        minute longer. False if there is no C++ compiler."""
        if shutil.which("c++") is None and shutil.which("g++") is None:
            return False
        for block in self.blocks:
            block.compile(dynamic=True)
        return True

    def take_hints(self, n_dims: int) -> None:
        """Add a layer that estimates a teacher's vector of a text, of `n_dims`, from the state at the
        text's end. It is used only for training and is not exported."""
        self.hint = nn.Linear(self.shape.n_embd, n_dims)

    def _begin(self) -> None:
        """Initialize weights randomly, with a small spread, and a smaller one for matrices that write to
        the residual stream."""
        nn.init.normal_(self.token_embd.weight, std=0.02)
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and name != "token_embd.weight":
                adds = name.endswith(("output.weight", "down.weight"))
                scale = (2 * self.shape.n_layers) ** -0.5 if adds else 1.0
                nn.init.normal_(weight, std=scale * self.shape.n_embd**-0.5 * 0.6)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states, float [n_batch, n_tokens, n_embd], of tokens: int64 [n_batch, n_tokens], padded
        at the end."""
        rotation = self.rotation[:, : tokens.shape[1]]
        x = self.drop(self.token_embd(tokens))
        for block in self.blocks:
            x = block(x, rotation)
        normed: Tensor = self.output_norm(x)
        return normed

    def logits(self, hidden: Tensor, first: int = 0, n: int | None = None) -> Tensor:
        """Logits of tokens `first` to `first + n` (default: all) for states of any shape."""
        end = None if n is None else first + n
        return F.linear(hidden, self.token_embd.weight[first:end])
