"""The trunk of a domain model: the shipped assistant without the tokens of its calls.

The last hidden state of a prompt, times the row of an intent's token, is the intent's logit. So rows for
new intents make the file a linear classifier on these states, which llama.cpp serves like any other model.
Weights are copied as they are stored; new rows are quantized like the others of their matrix.

Needs the package gguf, and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.trunk_file import (
    Floats,
    TrunkFile,
    dequantized,
    opened,
    quantized,
    replaced,
    write_gguf,
)
from edgeagent.types.intents import CALL_TEXT

# llama.h: enum llama_token_type, enum llama_pooling_type.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
POOLING_LAST = 3
_TOKENS, _KINDS, _MERGES = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
)
EMBEDDING = "token_embd.weight"
NORM = "output_norm.weight"
# Metadata of the source that does not describe the copy.
_OWN = ("general.name", "general.description", "general.architecture")


@dataclass(frozen=True, kw_only=True)
class Trunk(TrunkFile):
    """The file of an assistant. The rows of `EMBEDDING` belong to `tokens`, which hold the control tokens
    first and no call. `calls` are the rows of the tokens that were left out, float32 [n_embd] each."""

    tokens: tuple[str, ...]
    n_control: int
    calls: Mapping[str, Floats]

    @classmethod
    def read(cls, path: Path) -> Trunk:
        """Raises: ForgeFailed for a file that is no assistant, or without the package gguf."""
        try:
            reader = opened(path)
            fields = {n: f for n, f in reader.fields.items() if not n.startswith("GGUF.")}
            tokens = fields[_TOKENS].contents()
            kinds = fields[_KINDS].contents()
            tensors = {t.name: (np.array(t.data), t.tensor_type) for t in reader.tensors}
            rows, kind = tensors[EMBEDDING]
        except (OSError, ValueError, KeyError) as exc:
            raise ForgeFailed(
                f"{path} cannot be the trunk of a domain model ({exc}): name a shipped assistant."
            ) from exc
        control = [i for i, is_a in enumerate(kinds) if is_a == CONTROL]
        words = [
            i for i, (token, is_a) in enumerate(zip(tokens, kinds, strict=True))
            if is_a != CONTROL and not (is_a == USER_DEFINED and CALL_TEXT.fullmatch(token))
        ]  # fmt: skip
        if len(control) != 3 or control != [0, 1, 2] or len(words) + 3 == len(tokens):
            raise ForgeFailed(
                f"{path} is no assistant: its vocabulary has no tokens for calls. Name a shipped one."
            )
        kept = np.array([*control, *words])
        left_out = sorted(set(range(len(tokens))) - set(kept.tolist()))
        dense = dequantized(rows[left_out], kind)
        calls = {tokens[i]: dense[n] for n, i in enumerate(left_out)}
        tensors[EMBEDDING] = (np.ascontiguousarray(rows[kept]), kind)
        wanted = {
            name: (field.contents(), field.types[0], field.types[-1])
            for name, field in fields.items()
            if name not in (*_OWN, _TOKENS, _KINDS)
        }
        return cls(
            path=path, fields=wanted, tensors=tensors, calls=calls,
            tokens=tuple(tokens[i] for i in kept), n_control=len(control),
        )  # fmt: skip

    quant, family = "Q8_0", "llama"

    @property
    def n_embd(self) -> int:
        return len(self.norm)

    @property
    def norm(self) -> Floats:
        """The scale of the last layer norm, float32 [n_embd]."""
        return np.asarray(self.tensors[NORM][0], np.float32)

    def meta(self, name: str) -> Any:
        """A value of the metadata of this architecture, such as "block_count"."""
        return self.fields[f"llama.{name}"][0]

    @property
    def word_rows(self) -> Floats:
        """The rows of control tokens and words, float32 [n_tokens, n_embd]."""
        return self.dense(EMBEDDING)

    def write(
        self,
        target: Path,
        calls: Sequence[str],
        rows: Floats,
        *,
        name: str,
        description: str,
        is_encoder: bool = False,
        weights: Mapping[str, Floats] | None = None,
    ) -> None:
        """Write a model with these calls, whose rows are float32 [n_calls, n_embd].

        Ids: control tokens, calls, words. `is_encoder` writes a file that gives the last hidden state of a
        text instead of logits. `weights` replace tensors; `EMBEDDING` is all rows in the order of the ids.
        Raises: ForgeFailed if the file cannot be written.
        """
        import gguf

        assert rows.shape == (len(calls), self.n_embd)
        n = self.n_control
        stored, kind = self.tensors[EMBEDDING]
        new, _ = quantized(rows, kind)
        every = {**self.tensors, EMBEDDING: (np.concatenate([stored[:n], new, stored[n:]]), kind)}
        tokens = [*self.tokens[:n], *calls, *self.tokens[n:]]
        kinds = [CONTROL] * n + [USER_DEFINED] * len(calls) + [NORMAL] * (len(self.tokens) - n)
        fields = {
            key: (len(tokens) if key.endswith(".vocab_size") else value, *types)
            for key, (value, *types) in self.fields.items()
        }

        def add(writer: gguf.GGUFWriter) -> None:
            writer.add_name(name)
            writer.add_description(description)
            writer.add_token_list(tokens)
            writer.add_token_types(kinds)
            if is_encoder:
                writer.add_pooling_type(gguf.PoolingType.LAST)

        write_gguf(target, "llama", fields, replaced(every, weights), add)
