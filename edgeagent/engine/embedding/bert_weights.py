"""The weights of a BERT encoder in a GGUF file, as rows of 8-bit integers, in the format of CTranslate2.

Everything is made in memory, from the file that was verified: there is no second file to install, approve or
erase. Each row of a matrix, and of the token table, has a scale of its own; norms, biases and positions stay
float32. The vector of token type 0 is added to the positions, since all tokens of a text have that type. What
stands above the layers of a model that ranks is left to `rank_head`.

Source: the layout that `ctranslate2.specs.model_spec.ModelSpec` writes, binary version 6.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.header import read_header
from edgeagent.errors import ModelUnusable

# Types of matrices that are read here; in coarser ones the file has lost more than 8 bits would.
READABLE_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0"})

_BINARY_VERSION, _SPEC, _REVISION = 6, "TransformerEncoderSpec", 1
_GELU, _ADD = 3, 1  # ctranslate2.specs.common_spec: Activation, EmbeddingsMerge
_DTYPES = ("float32", "int8", "int16")  # by their numbers in ctranslate2/types.h
_ROWS_AT_ONCE = 4096
_HEAD = "cls."  # begins the names of a rank model's own layers

Array = np.ndarray[Any, Any]
Variable = tuple[str, Array]


def int8_model(path: Path) -> dict[str, bytes]:
    """The files of a CTranslate2 model, by name.

    Raises: GGUFRefused; ModelUnusable for a file that is not such an encoder.
    """
    bert = _Bert(path)
    variables = sorted(bert.variables(), key=lambda variable: variable[0])
    config: dict[str, Any] = {"layer_norm_epsilon": bert.number("attention.layer_norm_epsilon")}
    config |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "0")
    # The model is given token numbers only, but wants a name for each.
    names = [str(token) for token in range(bert.n_vocab)]
    return {
        "model.bin": b"".join(_serialized(variables)),
        "config.json": json.dumps(config).encode(),
        "vocabulary.json": json.dumps(names).encode(),
    }


def tensor_floats(path: Path, names: Sequence[str]) -> list[Array | None]:
    """float32 of some tensors, rows first; None for those that the file lacks. Raises: GGUFRefused,
    ModelUnusable for a type that is not read here."""
    bert = _Bert(path)
    return [bert.floats(name) for name in names]


class _Bert:
    """The tensors of one file, under CTranslate2's names."""

    def __init__(self, path: Path) -> None:
        self._header = read_header(path)
        self._tensors = {tensor.name: tensor for tensor in self._header.tensors}
        self._used: set[str] = set()
        table = self._tensors.get("token_embd.weight")
        self.n_vocab = table.shape[-1] if table is not None else 0

    def number(self, key: str) -> int | float:
        value = self._header.metadata.get(f"bert.{key}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._unusable(f"no number bert.{key}")
        return value

    def variables(self) -> Iterator[Variable]:
        """Raises: ModelUnusable for missing tensors, other shapes, and values that are no numbers."""
        width, n_ff = int(self.number("embedding_length")), int(self.number("feed_forward_length"))
        n_heads = int(self.number("attention.head_count"))
        if not 0 < n_heads <= width or width % n_heads:
            raise self._unusable(f"{n_heads} heads for a width of {width}")
        yield "encoder/num_heads", np.array(n_heads, np.int16)
        for name, value in (("pre_norm", 0), ("scale_embeddings", 0), ("multi_query_attention", 0),
                            ("activation", _GELU), ("embeddings_merge", _ADD)):  # fmt: skip
            yield f"encoder/{name}", np.array(value, np.int8)
        table = self._stored("token_embd.weight", (self.n_vocab, width))
        yield from self._quantized("encoder/embeddings_0", [table])
        n_positions = int(self.number("context_length"))
        positions = _floats(self._stored("position_embd.weight", (n_positions, width)))
        types = self._stored("token_types.weight", None)
        yield "encoder/position_encodings/encodings", positions + _floats(types[:1])
        yield from self._norm("encoder/layernorm_embedding", "token_embd_norm", width)
        for i in range(int(self.number("block_count"))):
            attention, ffn, own = (
                f"encoder/layer_{i}/self_attention",
                f"encoder/layer_{i}/ffn",
                f"blk.{i}",
            )
            qkv = [f"{own}.attn_{part}" for part in "qkv"]
            yield from self._linear(f"{attention}/linear_0", qkv, (width, width))
            yield from self._linear(f"{attention}/linear_1", [f"{own}.attn_output"], (width, width))
            yield from self._norm(f"{attention}/layer_norm", f"{own}.attn_output_norm", width)
            yield from self._linear(f"{ffn}/linear_0", [f"{own}.ffn_up"], (n_ff, width))
            yield from self._linear(f"{ffn}/linear_1", [f"{own}.ffn_down"], (width, n_ff))
            yield from self._norm(f"{ffn}/layer_norm", f"{own}.layer_output_norm", width)
        layers = {one for one in self._tensors if not one.startswith(_HEAD)}
        if more := sorted(layers - self._used):
            raise self._unusable(f"a tensor {more[0]!r}, which plain BERT lacks")

    def floats(self, name: str) -> Array | None:
        return _floats(self._stored(name, None)) if name in self._tensors else None

    def _norm(self, target: str, source: str, width: int) -> Iterator[Variable]:
        yield f"{target}/gamma", _floats(self._stored(f"{source}.weight", (width,)))
        yield f"{target}/beta", _floats(self._stored(f"{source}.bias", (width,)))

    def _linear(
        self, target: str, sources: list[str], shape: tuple[int, int]
    ) -> Iterator[Variable]:
        """A layer with the rows of all `sources`."""
        yield from self._quantized(target, [self._stored(f"{s}.weight", shape) for s in sources])
        biases = [_floats(self._stored(f"{s}.bias", shape[:1])) for s in sources]
        yield f"{target}/bias", np.concatenate(biases)

    def _quantized(self, target: str, matrices: list[Array]) -> Iterator[Variable]:
        values, scales = [], []
        for matrix in matrices:
            for at in range(0, len(matrix), _ROWS_AT_ONCE):
                rows = _floats(matrix[at : at + _ROWS_AT_ONCE])
                largest = np.abs(rows).max(axis=1)
                if not np.isfinite(largest).all():
                    raise self._unusable(f"values in {target!r} that are no numbers")
                scale = 127 / np.where(largest < 1e-30, 127, largest)
                values.append(np.rint(rows * scale[:, None]).astype(np.int8))
                scales.append(scale.astype(np.float32))
        yield f"{target}/weight", np.concatenate(values)
        yield f"{target}/weight_scale", np.concatenate(scales)

    def _stored(self, name: str, shape: tuple[int, ...] | None) -> Array:
        """A tensor as it lies in the file, for `_floats`. Its first dimension counts rows."""
        self._used.add(name)
        tensor = self._tensors.get(name)
        if tensor is None or shape not in (None, tensor.shape[::-1]):
            raise self._unusable(f"no tensor {name!r} of the shape {shape}")
        kind = tensor.type.name
        if kind not in READABLE_TYPES:
            raise self._unusable(f"a tensor {name!r} in {kind}")
        at = self._header.data_offset + tensor.offset
        raw = np.memmap(self._header.path, np.uint8, "r", at, (tensor.n_bytes,))
        if kind == "Q8_0":
            return raw.reshape(*tensor.shape[:0:-1], -1, 34)
        dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[kind]
        return raw.view(dtype).reshape(tensor.shape[::-1])

    def _unusable(self, what: str) -> ModelUnusable:
        return ModelUnusable(
            f"{self._header.path.name} has {what}, so it cannot be computed with 8-bit integers: set "
            "engine.int8_encoders to off."
        )


def _floats(stored: Array) -> Array:
    """float32 of some rows that `_Bert._stored` gave."""
    if stored.dtype == np.uint8:  # Q8_0: a float16 scale, and 32 numbers
        scales = np.ascontiguousarray(stored[..., :2]).view("<f2").astype(np.float32)
        values = np.ascontiguousarray(stored[..., 2:]).view(np.int8) * scales
        return np.asarray(values.reshape(*stored.shape[:-2], -1))
    if stored.dtype == np.uint16:  # BF16: the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _serialized(variables: list[Variable]) -> Iterator[bytes]:
    yield struct.pack("<I", _BINARY_VERSION) + _string(_SPEC)
    yield struct.pack("<II", _REVISION, len(variables))
    for name, value in variables:
        yield _string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        yield struct.pack("<BI", _DTYPES.index(value.dtype.name), value.nbytes)
        yield value.tobytes()
    yield struct.pack("<I", 0)  # aliases


def _string(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data
