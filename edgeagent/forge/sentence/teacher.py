"""What a published sentence encoder makes of a text at several depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeagent.forge.encoder import Encoder
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster


class DepthEncoder(Encoder):
    """As `Encoder`, with the means of the states behind some of its layers."""

    @torch.no_grad()
    def at_depths(self, texts: Sequence[str], depths: Sequence[int]) -> list[Tensor]:
        """For each depth float32 [n_texts, n_embd]."""
        encoded = self.tokenizer.encode_batch(list(texts))
        n_tokens = max(len(e.ids) for e in encoded)
        ids = torch.zeros(len(texts), n_tokens, dtype=torch.long)
        mask = torch.zeros(len(texts), n_tokens, dtype=torch.bool)
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
            mask[row, : len(e.ids)] = True
        weight = mask.unsqueeze(-1).float()
        x = self.norm(self.words(ids) + self.positions.weight[:n_tokens] + self.kinds.weight[0])
        means = []
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
            means.append((x.float() * weight).sum(1) / weight.sum(1))
        return [means[depth - 1] for depth in depths]

    def asked(self, texts: Sequence[str], depths: Sequence[int]) -> np.ndarray[Any, Any]:
        """The same for any number of texts: float16 [n_depths, n_texts, n_embd]."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.empty((len(depths), len(texts), self.n_embd), np.float16)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            with autocast(bf16_is_faster()):
                found = self.at_depths([texts[i] for i in batch], depths)
            out[:, batch] = torch.stack(found).numpy()
        return out
