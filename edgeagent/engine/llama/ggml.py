"""What of ggml's C interface the bindings lack: the nodes that are computed, and conversion of weights.

The layout of `struct ggml_tensor` is that of ggml.h in llama-cpp-python 0.3.36; `Watch` checks it with the
first node that it sees.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES, GGMLType
from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import EngineFailed

_pointer = ctypes.c_void_p
TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}
_F32, _F16 = TYPE_NUMBERS["F32"], TYPE_NUMBERS["F16"]


class Tensor(ctypes.Structure):
    """A leaf or a node of a graph."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", _pointer),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", _pointer),
    ("view_offs", ctypes.c_size_t),
    ("data", _pointer),
    ("name", ctypes.c_char * 64),
]


class _TypeTraits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _pointer),
        ("from_float", _pointer),
    )


@cache
def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml that llama_cpp does not bind."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, lib._lib))


@dataclass(frozen=True)
class Weight:
    """A matrix in the memory of a loaded model. `shape`: columns first. `address`: its data."""

    name: str
    type: GGMLType
    shape: tuple[int, int, int]
    address: int


@dataclass(frozen=True)
class Product:
    """A matrix product that was computed: its weights, and the activations they were multiplied with.

    `rows`: float32 [n_rows, n_columns], a view that is valid during the call only.
    """

    weight: Weight
    rows: np.ndarray[Any, Any]


class Watch:
    """Passes the products of a decode to a function. Give `callback` to the context as `cb_eval`.

    Called by llama.cpp on the thread that decodes. `wants` says, for the name of a matrix, whether its
    activations are wanted; `weights` has the matrices of all products and lookups. What `take` raises ends
    up in `failure`, because it cannot pass through C code.
    """

    def __init__(
        self,
        wants: Callable[[str], bool] = lambda name: False,
        take: Callable[[Product], None] = lambda product: None,
    ) -> None:
        self.wants = wants
        self.take = take
        self.weights: dict[str, Weight] = {}
        self.failure: Exception | None = None
        self._is_known_layout = False
        self.callback = lib.ggml_backend_sched_eval_callback(self._called)

    def _called(self, address: int, is_asking: bool, _data: object) -> bool:
        try:
            return self._handle(Tensor.from_address(address), address, is_asking)
        except Exception as exc:
            self.failure = self.failure or exc
            return not is_asking  # False after a node would stop the decode

    def _handle(self, node: Tensor, address: int, is_asking: bool) -> bool:
        if not self._is_known_layout:
            told = function("ggml_get_name", ctypes.c_char_p, _pointer)(address)
            if told != node.name:
                raise EngineFailed("This build of ggml has another layout of its tensors.")
            self._is_known_layout = True
        kind = _op_name(node.op)
        if kind == b"GET_ROWS" and node.src[0].contents.name.endswith(b".weight"):
            self._weight(node.src[0].contents)
        if kind != b"MUL_MAT":
            return not is_asking
        weight = self._weight(node.src[0].contents)
        if is_asking:
            source = node.src[1].contents
            return source.type == _F32 and source.nb[0] == 4 and self.wants(weight.name)
        self.take(Product(weight, _rows(node.src[1].contents)))
        return True

    def _weight(self, tensor: Tensor) -> Weight:
        name = tensor.name.decode("utf-8", "replace")
        known = self.weights.get(name)
        if known is None:
            shape = (int(tensor.ne[0]), int(tensor.ne[1]), int(tensor.ne[2]))
            known = Weight(name, GGML_TYPES[tensor.type], shape, int(tensor.data or 0))
            self.weights[name] = known
        return known


@cache
def _op_name(op: int) -> bytes:
    told: bytes = function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)(op)
    return told


def _rows(tensor: Tensor) -> np.ndarray[Any, Any]:
    ne, nb = list(tensor.ne), list(tensor.nb)
    end = sum((n - 1) * step for n, step in zip(ne, nb, strict=True)) + 4
    raw = np.frombuffer((ctypes.c_char * end).from_address(tensor.data), np.uint8)
    view = np.ndarray((ne[3], ne[2], ne[1], ne[0]), np.float32, raw, strides=nb[::-1])
    return view.reshape(-1, ne[0])


def read_weight(weight: Weight) -> np.ndarray[Any, Any]:
    """A matrix of a loaded model as float32 [n_rows, n_columns]. Types: F16 and F32."""
    kind: Any = np.float16 if weight.type.name == "F16" else np.float32
    n = weight.shape[0] * weight.shape[1] * weight.shape[2]
    raw = (ctypes.c_char * (n * np.dtype(kind).itemsize)).from_address(weight.address)
    values: np.ndarray[Any, Any] = np.frombuffer(raw, kind).astype(np.float32)
    return values.reshape(-1, weight.shape[0])


def write_weight(weight: Weight, values: np.ndarray[Any, Any]) -> None:
    """Replace a matrix of a model that was loaded into memory of its own (`use_mmap` off)."""
    kind = np.float16 if weight.type.name == "F16" else np.float32
    data = np.ascontiguousarray(values, kind)
    ctypes.memmove(weight.address, data.ctypes.data, data.nbytes)


def rounded(
    values: np.ndarray[Any, Any], kind: str, importance: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any]:
    """float32 [n_rows, n_columns] as it is after quantization to `kind` and back, by ggml.

    `importance`: float32 [n_columns], the weights of the columns' errors, or None.
    """
    if kind == "F32":
        return values
    if kind == "F16":
        return values.astype(np.float16).astype(np.float32)
    number, (n_rows, n_columns) = TYPE_NUMBERS[kind], values.shape
    if n_columns % GGML_TYPES[number].block:
        raise EngineFailed(
            f"{n_columns} columns cannot be {kind}, whose blocks have {GGML_TYPES[number].block}."
        )
    source = np.ascontiguousarray(values, np.float32)
    packed = np.empty(
        source.size // GGML_TYPES[number].block * GGML_TYPES[number].n_bytes, np.uint8
    )
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    pack = function(
        "ggml_quantize_chunk", ctypes.c_size_t, ctypes.c_int, _pointer, _pointer, ctypes.c_int64,
        ctypes.c_int64, ctypes.c_int64, _pointer,
    )  # fmt: skip
    pack(
        number, source.ctypes.data, packed.ctypes.data, 0, n_rows, n_columns,
        None if weights is None else weights.ctypes.data,
    )  # fmt: skip
    traits = function("ggml_get_type_traits", ctypes.POINTER(_TypeTraits), ctypes.c_int)(number)
    unpack = ctypes.CFUNCTYPE(None, _pointer, _pointer, ctypes.c_int64)(traits.contents.to_float)
    found = np.empty_like(source)
    unpack(packed.ctypes.data, found.ctypes.data, source.size)
    return found
