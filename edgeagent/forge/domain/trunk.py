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
from edgeagent.types.intents import CALL_TEXT

Floats = np.ndarray[Any, np.dtype[np.float32]]
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
_MISSING = "Training needs gguf: run pip install 'edgeagent[intents]'."


@dataclass(frozen=True)
class Trunk:
    """A model file in memory. `tensors`: name to the stored array and its GGML type; the rows of
    `EMBEDDING` belong to `tokens`, which hold the control tokens first and no call. `calls` are the rows of
    the tokens that were left out, float32 [n_embd] each."""

    path: Path
    fields: Mapping[str, tuple[Any, Any, Any]]
    tokens: tuple[str, ...]
    n_control: int
    calls: Mapping[str, Floats]
    tensors: Mapping[str, tuple[np.ndarray[Any, Any], Any]]

    @classmethod
    def read(cls, path: Path) -> Trunk:
        """Raises: ForgeFailed for a file that is no assistant, or without the package gguf."""
        try:
            import gguf
            from gguf.quants import dequantize
        except ImportError as exc:
            raise ForgeFailed(_MISSING) from exc
        try:
            reader = gguf.GGUFReader(path)
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
        dense = np.asarray(dequantize(rows[left_out], kind), np.float32)
        calls = {tokens[i]: dense[n] for n, i in enumerate(left_out)}
        tensors[EMBEDDING] = (np.ascontiguousarray(rows[kept]), kind)
        wanted = {
            name: (field.contents(), field.types[0], field.types[-1])
            for name, field in fields.items()
            if name not in (*_OWN, _TOKENS, _KINDS)
        }
        return cls(path, wanted, tuple(tokens[i] for i in kept), len(control), calls, tensors)

    quant, family = "Q8_0", "llama"

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def n_params(self) -> int:
        return sum(int(np.prod(self.dense_shape(name))) for name in self.tensors)

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

    def dense(self, name: str) -> Floats:
        """A tensor as float32."""
        from gguf.quants import dequantize

        data, kind = self.tensors[name]
        return np.asarray(dequantize(data, kind), np.float32)

    def dense_shape(self, name: str) -> tuple[int, ...]:
        """The dimensions of a tensor, whatever its type."""
        from gguf.quants import quant_shape_from_byte_shape

        data, kind = self.tensors[name]
        if data.dtype != np.uint8:
            return tuple(data.shape)
        return tuple(quant_shape_from_byte_shape(data.shape, kind))

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
        from gguf.quants import quantize

        assert rows.shape == (len(calls), self.n_embd)
        n = self.n_control
        tensors = dict(self.tensors)
        stored, kind = tensors[EMBEDDING]
        new = quantize(np.ascontiguousarray(rows, np.float32), kind)
        tensors[EMBEDDING] = (np.concatenate([stored[:n], new, stored[n:]]), kind)
        for tensor, weight in (weights or {}).items():
            kind = tensors[tensor][1]
            tensors[tensor] = (quantize(np.ascontiguousarray(weight, np.float32), kind), kind)
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            writer = gguf.GGUFWriter(partial, "llama")
            writer.add_name(name)
            writer.add_description(description)
            tokens = [*self.tokens[:n], *calls, *self.tokens[n:]]
            kinds = [CONTROL] * n + [USER_DEFINED] * len(calls) + [NORMAL] * (len(self.tokens) - n)
            for key, (value, type_, item) in self.fields.items():
                if key.endswith(".vocab_size"):
                    value = len(tokens)
                is_array = type_ == gguf.GGUFValueType.ARRAY
                writer.add_key_value(key, value, type_, item if is_array else None)
            writer.add_token_list(tokens)
            writer.add_token_types(kinds)
            if is_encoder:
                writer.add_pooling_type(gguf.PoolingType.LAST)
            for tensor, (data, kind) in tensors.items():
                writer.add_tensor(tensor, data, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            partial.replace(target)
        except OSError as exc:
            raise ForgeFailed(
                f"{target} cannot be written ({exc.strerror or exc}): check the disk."
            ) from exc
        finally:
            partial.unlink(missing_ok=True)
