"""Initializes a decoder from the weights of a published model.

A GGUF file of the llama architecture provides word vectors for another tokenizer (the mean of the vectors
of a token's pieces) and, if the widths match, its first blocks.

Sources: Gee et al. 2022, "Fast Vocabulary Transfer", arXiv:2402.09977; keeping the first blocks: Sajjad et
al. 2020, arXiv:2004.03844.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from edgeagent.catalog.assistant_intents import spoken
from edgeagent.errors import ForgeFailed
from edgeagent.forge.decoder import Block, Decoder
from edgeagent.forge.tokenizer import CONTROL, AssistantTokenizer

_PARTS = {
    "attn_norm": "attn_norm",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_output": "attn.output",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}


class PretrainedModel:
    """A GGUF file of the llama architecture with a byte-level BPE."""

    def __init__(self, path: Path) -> None:
        """Raises: ForgeFailed."""
        try:
            reader = gguf.GGUFReader(path)
        except (OSError, ValueError) as exc:
            raise ForgeFailed(f"{path} is not a GGUF file ({exc}): name one that is.") from exc
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        fields: dict[str, Any] = reader.fields
        if fields["general.architecture"].contents() != "llama":
            raise ForgeFailed(f"{path} is not of the llama architecture: name one that is.")
        self._n_embd = int(fields["llama.embedding_length"].contents())
        pieces = fields["tokenizer.ggml.tokens"].contents()
        merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"].contents()]
        self._bpe = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )

    def _tensor(self, name: str) -> np.ndarray[Any, Any]:
        tensor = self._tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return np.asarray(values, np.float32)

    def word_vectors(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """float32 [n_texts, n_embd]: the mean over the pieces of each text; zeros for an empty one."""
        table = self._tensor("token_embd.weight")
        out = np.zeros((len(texts), table.shape[1]), np.float32)
        for row, encoded in enumerate(self._bpe.encode_batch(texts)):
            if encoded.ids:
                out[row] = table[encoded.ids].mean(0)
        return out

    def give_vectors(self, decoder: Decoder, vocabulary: AssistantTokenizer) -> None:
        """Set the decoder's embedding; a narrower one gets the principal components of the vectors."""
        vectors = self.word_vectors(_meanings(vocabulary))
        width = decoder.shape.n_embd
        if width < vectors.shape[1]:
            centred = vectors - vectors.mean(0)
            _, _, directions = np.linalg.svd(centred, full_matrices=False)
            vectors = centred @ directions[:width].T
            vectors *= 0.08 / vectors.std()
        empty = ~vectors.any(axis=1)
        vectors[empty] = np.random.default_rng(0).normal(
            0, vectors[~empty].std(), (int(empty.sum()), vectors.shape[1])
        )
        with torch.no_grad():
            decoder.token_embd.weight[:, : vectors.shape[1]] = torch.from_numpy(vectors)

    def give_blocks(self, decoder: Decoder, which: list[int]) -> None:
        """Copy blocks `which` of the file into the decoder's. Raises: ForgeFailed if the shapes differ."""
        with torch.no_grad():
            for block, number in zip(decoder.blocks, which, strict=True):
                assert isinstance(block, Block)
                for theirs, ours in _PARTS.items():
                    parameter = block.get_submodule(ours).weight
                    value = torch.from_numpy(self._tensor(f"blk.{number}.{theirs}.weight"))
                    if parameter.shape != value.shape:
                        raise ForgeFailed(
                            f"Block {number} has {theirs} of shape {tuple(value.shape)}, the decoder's is "
                            f"{tuple(parameter.shape)}: give the decoder the shape of the file's blocks."
                        )
                    assert isinstance(parameter, nn.Parameter)
                    parameter.copy_(value)
            decoder.output_norm.weight.copy_(torch.from_numpy(self._tensor("output_norm.weight")))


def _meanings(vocabulary: AssistantTokenizer) -> list[str]:
    """The meaning of each token as a text that a general tokenizer knows."""
    decoded = []
    for token_id in range(vocabulary.n_tokens):
        if token_id < len(CONTROL):
            decoded.append("")
        elif token_id < len(vocabulary.special):
            decoded.append(_spoken(vocabulary.special[token_id]))
        else:
            decoded.append(vocabulary.decode([token_id]))
    return decoded


def _spoken(call: str) -> str:
    """The words of an intent's or a slot's name."""
    name = call.split('"name":"')[-1].split('"')[0] if '"name"' in call else call.strip('",:{}')
    words = spoken(name)
    return f" {words}" if words else ""
