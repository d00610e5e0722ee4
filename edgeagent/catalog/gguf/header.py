"""Reads the header of a GGUF file without trusting any number in it.

llama.cpp parses this header in C++, and some headers crash it, so every file is read here first. Nothing
is allocated for a count before the bytes for it are known to exist; long arrays (the vocabulary) are
skipped and only counted; everything has a limit in `HeaderLimits`. This module only decides whether the
header can be read and whether its tensors are inside the file; `header_checks.check` decides whether the
numbers are consistent.

    read_header(path) -> Header                     the bytes, as typed values
    header_checks.check(header)                     whether the engine survives this model
    model_facts_reader.inspect(path) -> ModelFacts  both, and the facts that edgeagent needs

Source: the GGUF specification, versions 2 and 3, little-endian (docs/gguf.md of ggml).
"""

from __future__ import annotations

import io
import math
import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from edgeagent.catalog.gguf.byte_cursor import ByteCursor, open_regular
from edgeagent.catalog.gguf.ggml_types import GGML_TYPES, GGMLType
from edgeagent.errors import GGUFRefused

TOKENS_KEY = "tokenizer.ggml.tokens"

_STRING, _ARRAY, _BOOL = 8, 9, 7
_HASHES_AT_ONCE = 32_768
_SCALARS: dict[int, tuple[str, struct.Struct]] = {
    0: ("u8", struct.Struct("<B")),
    1: ("i8", struct.Struct("<b")),
    2: ("u16", struct.Struct("<H")),
    3: ("i16", struct.Struct("<h")),
    4: ("u32", struct.Struct("<I")),
    5: ("i32", struct.Struct("<i")),
    6: ("f32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<B")),
    10: ("u64", struct.Struct("<Q")),
    11: ("i64", struct.Struct("<q")),
    12: ("f64", struct.Struct("<d")),
}
_KINDS = {number: name for number, (name, _) in _SCALARS.items()} | {
    _STRING: "string",
    _ARRAY: "array",
}


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Limits for one header. The defaults are about four times the largest ordinary model."""

    # 262k tokens of Gemma with scores, types and merges take about 12 MB.
    max_header_bytes: int = 64 * 1024 * 1024
    max_keys: int = 4096
    max_key_bytes: int = 1024
    # The longest chat templates seen are about 20 KB.
    max_string_bytes: int = 4 * 1024 * 1024
    max_array_items: int = 4 * 1024 * 1024
    max_tokens: int = 1024 * 1024
    # Arrays up to this length are kept (one number per layer); longer ones are only counted.
    keep_items: int = 1024
    max_tensors: int = 16 * 1024
    # ggml keeps names in 64 bytes and shapes in four dimensions.
    max_name_bytes: int = 63
    max_dims: int = 4


Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array value. `values` is None if the array was so long that it was skipped.

    `n_distinct` counts different non-empty strings plus all empty ones; only the vocabulary has it.
    """

    item_type: str
    n_items: int
    values: tuple[Scalar, ...] | None = None
    n_distinct: int | None = None


Value = Scalar | ArrayValue


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `shape` has the fastest dimension first; `offset` counts from `data_offset`."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_elements // self.type.block * self.type.n_bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a GGUF file. Offsets and sizes in bytes; `end` is behind the last tensor's entry. `kinds`
    are the stored types of the metadata, by key."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int
    file_bytes: int
    end: int
    kinds: dict[str, str] = field(default_factory=dict)


def read_header(path: Path | str, limits: HeaderLimits | None = None) -> Header:
    """Read the header of the GGUF file at `path` and check its limits.

    Reads at most `limits.max_header_bytes`; memory use is a few times the kept values. Raises: GGUFRefused
    for anything that is not a complete, well-formed GGUF file.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            return _Reader(path, file, limits or HeaderLimits()).header()
    except (OSError, ValueError) as error:
        raise GGUFRefused(
            f"{path.name!r} cannot be read ({error}): check the path and its permissions"
        ) from error


class _Reader(ByteCursor):
    """Reads the parts of a GGUF header in order."""

    def __init__(self, path: Path, file: io.FileIO, limits: HeaderLimits) -> None:
        super().__init__(path, file, limits.max_header_bytes)
        self.limits = limits
        self.kinds: dict[str, str] = {}

    def header(self) -> Header:
        if self.take(4, "the magic") != b"GGUF":
            raise self.refused("is not a GGUF file (it does not begin with 'GGUF')")
        version = int(self.unpack(struct.Struct("<I"), "the version"))
        if version not in (2, 3):
            raise self.refused(f"has GGUF version {version}, only 2 and 3 (little-endian) are read")
        n_tensors = self.count("<Q", "the number of tensors", self.limits.max_tensors)
        n_keys = self.count("<Q", "the number of keys", self.limits.max_keys)
        # The smallest key takes 8 + 1 + 4 + 1 bytes, the smallest tensor 8 + 1 + 4 + 8 + 4 + 8.
        self.need(n_keys * 14 + n_tensors * 33, f"{n_keys} keys and {n_tensors} tensors")
        metadata = self._metadata(n_keys)
        alignment = self._alignment(metadata)
        tensors = self._tensors(n_tensors)
        end = self.at
        data_offset = -(-end // alignment) * alignment
        self._check_extents(tensors, alignment, data_offset)
        return Header(
            self.path, version, metadata, tensors, alignment, data_offset, self.file_bytes, end,
            self.kinds,
        )  # fmt: skip

    def _metadata(self, n_keys: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for i in range(n_keys):
            key = self.text(f"the name of key {i}", self.limits.max_key_bytes)
            if not key or not key.isprintable():
                raise self.refused(f"has {key!r} as the name of key {i}")
            if key in metadata:
                raise self.refused(f"has key {key!r} twice")
            metadata[key] = self._value(key)
        return metadata

    def _value(self, key: str) -> Value:
        kind = int(self.unpack(struct.Struct("<I"), f"the type of key {key!r}"))
        self.kinds[key] = _KINDS.get(kind, "")
        if kind == _ARRAY:
            return self._array(key)
        return self._scalar(kind, f"key {key!r}")

    def _scalar(self, kind: int, what: str) -> Scalar:
        if kind == _STRING:
            return self.text(what, self.limits.max_string_bytes)
        if kind not in _SCALARS:
            raise self.refused(f"gives {what} the unknown type {kind}, the highest known is 12")
        value = self.unpack(_SCALARS[kind][1], what)
        return bool(value) if kind == _BOOL else value

    def _array(self, key: str) -> ArrayValue:
        what = f"array {key!r}"
        kind = int(self.unpack(struct.Struct("<I"), f"the item type of {what}"))
        bound = self.limits.max_tokens if key == TOKENS_KEY else self.limits.max_array_items
        n_items = self.count("<Q", f"the length of {what}", bound)
        if kind != _STRING and kind not in _SCALARS:
            raise self.refused(f"gives {what} the item type {kind}, which no model uses")
        item_bytes = 8 if kind == _STRING else _SCALARS[kind][1].size
        self.need(n_items * item_bytes, what)
        name = "string" if kind == _STRING else _SCALARS[kind][0]
        if key == TOKENS_KEY and kind == _STRING:
            return ArrayValue(name, n_items, n_distinct=self._count_distinct(n_items, what))
        if n_items <= self.limits.keep_items:
            return ArrayValue(name, n_items, self._items(kind, n_items, what))
        if kind == _STRING:
            for _ in self.strings(n_items, what, self.limits.max_string_bytes):
                pass
        else:
            self.skip(n_items * item_bytes, what)
        return ArrayValue(name, n_items)

    def _items(self, kind: int, n_items: int, what: str) -> tuple[Scalar, ...]:
        """The items of an array. Numbers are unpacked all at once: in a tenth of the time."""
        if kind == _STRING:
            return tuple(self._scalar(kind, what) for _ in range(n_items))
        form = _SCALARS[kind][1]
        raw = self.take(n_items * form.size, what)
        values = struct.unpack(f"<{n_items}{form.format[-1]}", raw)
        return tuple(map(bool, values)) if kind == _BOOL else values

    def _count_distinct(self, n_items: int, what: str) -> int:
        """How many different strings follow; every empty string counts as different.

        Kept as 64-bit hashes and compared in parts, because a set of the strings would take ten times the
        memory.
        """
        strings = self.strings(n_items, what, self.limits.max_string_bytes)
        hashes = array("q", (hash(token) for token in strings if token))
        n_empty = n_items - len(hashes)
        n_parts = 1 + len(hashes) // _HASHES_AT_ONCE
        parts = ({value for value in hashes if value % n_parts == part} for part in range(n_parts))
        return sum(map(len, parts)) + n_empty

    def _alignment(self, metadata: dict[str, Value]) -> int:
        value = metadata.get("general.alignment", 32)
        # ggml ends the process if tensors are aligned to less than 32 bytes.
        if type(value) is not int or not 32 <= value <= 65536 or value & (value - 1):
            raise self.refused(f"has alignment {value}, it must be a power of two from 32 to 65536")
        return value

    # -- tensors -------------------------------------------------------------------------------

    def _tensors(self, n_tensors: int) -> tuple[TensorInfo, ...]:
        tensors: dict[str, TensorInfo] = {}
        for i in range(n_tensors):
            tensor = self._tensor(i)
            if tensor.name in tensors:
                raise self.refused(f"has tensor {tensor.name!r} twice")
            tensors[tensor.name] = tensor
        return tuple(tensors.values())

    def _tensor(self, i: int) -> TensorInfo:
        name = self.text(f"the name of tensor {i}", self.limits.max_name_bytes)
        if not name or not name.isprintable():
            raise self.refused(f"has {name!r} as the name of tensor {i}")
        what = f"tensor {name!r}"
        n_dims = self.count("<I", f"the number of dimensions of {what}", self.limits.max_dims)
        shape = struct.unpack(f"<{n_dims}Q", self.take(8 * n_dims, what))
        kind = int(self.unpack(struct.Struct("<I"), f"the type of {what}"))
        offset = int(self.unpack(struct.Struct("<Q"), f"the offset of {what}"))
        if kind not in GGML_TYPES:
            raise self.refused(
                f"stores {what} as ggml type {kind}, which this version does not know",
                "use another quantization of the model",
            )
        tensor = TensorInfo(name, shape, GGML_TYPES[kind], offset)
        if not shape or min(shape) < 1 or shape[0] % tensor.type.block:
            raise self.refused(
                f"gives {what} of type {tensor.type.name} the shape {shape}; every dimension must"
                f" be 1 or more and the first a multiple of {tensor.type.block}"
            )
        return tensor

    def _check_extents(
        self, tensors: tuple[TensorInfo, ...], alignment: int, data_offset: int
    ) -> None:
        """Refuse tensors that overlap, are misaligned or extend past the end of the file."""
        end, before = 0, "the header"
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            what = f"tensor {tensor.name!r}"
            if tensor.offset % alignment:
                raise self.refused(
                    f"puts {what} at offset {tensor.offset}, which is not a multiple of {alignment}"
                )
            if tensor.offset < end:
                raise self.refused(
                    f"puts {what} at offset {tensor.offset}, inside {before}, which ends at {end}"
                )
            end, before = tensor.offset + tensor.n_bytes, what
            if data_offset + end > self.file_bytes:
                raise self.refused(
                    f"has {self.file_bytes} bytes, but {what} ends at byte {data_offset + end}",
                    "the file was truncated, install it again",
                )
