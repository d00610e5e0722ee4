"""A BERT sentence encoder in numpy, to compare the converted model with.

Written from the paper (Devlin et al. 2018, arXiv:1810.04805) and the tensors' names, not from any
program: slow, whole sentences, float64.
"""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_erf = np.vectorize(erf)


def word_pieces(text: str, vocabulary: list[str]) -> list[int]:
    """Token ids of plain lower-case ASCII words, [CLS] and [SEP] around them."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    out = [ids["[CLS]"]]
    for word in text.split():
        begin = 0
        while begin < len(word):
            for end in range(len(word), begin, -1):
                piece = ("##" if begin else "") + word[begin:end]
                if piece in ids:
                    out.append(ids[piece])
                    begin = end
                    break
            else:
                raise ValueError(f"{word!r} is not made of this vocabulary")
    return [*out, ids["[SEP]"]]


def embed(tensors: dict[str, Array], n_heads: int, eps: float, tokens: list[int]) -> Array:
    """The mean of the last layer, of length 1. float64 [n_embd]."""
    mean = encode(tensors, n_heads, eps, tokens).mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def classify(tensors: dict[str, Array], n_heads: int, eps: float, tokens: list[int]) -> float:
    """What a classifier of one output says of the first token: pooler, tanh, classifier."""
    first = encode(tensors, n_heads, eps, tokens)[0]
    pooled = np.tanh(first @ tensors["pooler.dense.weight"].T + tensors["pooler.dense.bias"])
    (logit,) = pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    return float(logit)


def encode(tensors: dict[str, Array], n_heads: int, eps: float, tokens: list[int]) -> Array:
    """The last layer's output for each token. float64 [n_tokens, n_embd]."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def dense(x: Array, name: str) -> Array:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * t[f"{name}.weight"] + t[f"{name}.bias"]

    def heads(x: Array) -> Array:
        return x.reshape(len(tokens), n_heads, -1).transpose(1, 0, 2)

    x = t["embeddings.word_embeddings.weight"][tokens]
    x = x + t["embeddings.position_embeddings.weight"][: len(tokens)]
    x = norm(x + t["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    n_layers = len({name.split(".")[2] for name in t if name.startswith("encoder.layer.")})
    for i in range(n_layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        seen = (weights @ v).transpose(1, 0, 2).reshape(x.shape)
        seen = dense(seen, f"{layer}.attention.output.dense")
        x = norm(x + seen, f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + _erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return np.asarray(x)
