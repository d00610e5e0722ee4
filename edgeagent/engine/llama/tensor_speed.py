"""Measures how fast this processor multiplies weights of each tensor type, on matrices made up for it.

    python -m edgeagent.engine.llama.tensor_speed --threads 2 --weights 33554432 --limit 8

Weights lie where llama.cpp would put them: in the layout of the processor's own kernels where it has one for
the type. A type is timed with one token, as in decoding, with a few, and with a chunk of a prompt. The
process prints the type being measured and then its rates, one JSON object a line; the most usual types come
first, and when the time is up, the rest is omitted.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES, GGMLType
from edgeagent.engine.llama import bindings
from edgeagent.engine.llama.ggml import TYPE_NUMBERS, Tensor, function
from edgeagent.errors import EdgeAgentError, EngineFailed
from edgeagent.types.measurement import TensorRate
from edgeagent.worker import confinement

# Not measured: types that need an importance matrix, and those that no usual file has.
TYPES = (
    "Q4_0", "Q4_1", "Q4_K", "Q8_0", "Q6_K", "IQ4_NL", "Q5_K", "F16", "Q5_0", "Q5_1", "IQ4_XS", "Q3_K",
    "Q2_K", "BF16",
)  # fmt: skip
N_COLUMNS = 2048
N_ROWS = 2048
CHUNK_TOKENS = 128
FEW_TOKENS = 4
SHARE_S = 0.1  # for each of the three timings
LEAST_RUNS = 3
MAX_MATRICES = 64

_pointer, _int, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool))


class Matrices:
    """The same number of weights in any type: matrices of 2048 by 2048, multiplied one after another.

    `close()` may be called twice. One thread.
    """

    def __init__(self, n_matrices: int, n_threads: int) -> None:
        self.n_weights = n_matrices * N_ROWS * N_COLUMNS
        self._n_matrices = n_matrices
        self._backend = function("ggml_backend_cpu_init", _pointer)()
        if not self._backend:
            raise EngineFailed("This build of ggml has no processor backend.")
        function("ggml_backend_cpu_set_n_threads", None, _pointer, _int)(self._backend, n_threads)
        self._device = function("ggml_backend_dev_by_type", _pointer, _int)(0)
        self._plain = function("ggml_backend_cpu_buffer_type", _pointer)()
        rng = np.random.default_rng(1)
        self._values = rng.standard_normal((N_ROWS, N_COLUMNS), np.float32)

    def rate(self, kind: str) -> TensorRate:
        """The rates of a type, in weights a second. Raises: EngineFailed."""
        is_repacked, decode_s, few_s, prefill_s = False, 0.0, 0.0, 0.0
        data = packed(self._values, GGML_TYPES[TYPE_NUMBERS[kind]])
        with self._context() as weights, self._context() as rest:
            matrices = [self._matrix(weights, kind) for _ in range(self._n_matrices)]
            layout = self._layout(rest, matrices[0])
            is_repacked = layout != self._plain
            with self._allocated(weights, layout):
                put = function("ggml_backend_tensor_set", None, _pointer, _pointer, _size, _size)
                for matrix in matrices:
                    put(matrix, data.ctypes.data, 0, data.nbytes)
                decode_s = self._timed(matrices, 1)
                few_s = self._timed(matrices, FEW_TOKENS)
                prefill_s = self._timed(matrices, CHUNK_TOKENS)
        return TensorRate(
            decode=self.n_weights / decode_s,
            prefill=self.n_weights * CHUNK_TOKENS / prefill_s,
            is_repacked=is_repacked,
            few=self.n_weights * FEW_TOKENS / few_s,
        )

    def _timed(self, matrices: list[int], n_tokens: int) -> float:
        """Seconds in which `n_tokens` pass all matrices: the best run, which others disturbed least."""
        with self._context() as context:
            activations = self._new(context, "F32", N_COLUMNS, n_tokens)
            graph = function("ggml_new_graph", _pointer, _pointer)(context)
            multiply = function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)
            expand = function("ggml_build_forward_expand", None, _pointer, _pointer)
            for matrix in matrices:
                expand(graph, multiply(context, matrix, activations))
            with self._allocated(context, self._plain):
                put = function("ggml_backend_tensor_set", None, _pointer, _pointer, _size, _size)
                values = np.ascontiguousarray(np.resize(self._values, (n_tokens, N_COLUMNS)))
                put(activations, values.ctypes.data, 0, values.nbytes)
                compute = function("ggml_backend_graph_compute", _int, _pointer, _pointer)
                if compute(self._backend, graph) != 0:  # once before: threads start, caches fill
                    raise EngineFailed("ggml could not multiply the matrices.")
                times: list[float] = []
                begun = time.perf_counter()
                while len(times) < LEAST_RUNS or time.perf_counter() - begun < SHARE_S:
                    started = time.perf_counter()
                    compute(self._backend, graph)
                    times.append(time.perf_counter() - started)
        return min(times)

    def _matrix(self, context: int, kind: str) -> int:
        return self._new(context, kind, N_COLUMNS, N_ROWS)

    def _new(self, context: int, kind: str, n_columns: int, n_rows: int) -> int:
        make = function(
            "ggml_new_tensor_2d", _pointer, _pointer, _int, ctypes.c_int64, ctypes.c_int64
        )
        return int(make(context, TYPE_NUMBERS[kind], n_columns, n_rows))

    def _layout(self, context: int, matrix: int) -> int:
        """The first of the processor's own buffer types that has a kernel for such a matrix, as llama.cpp
        chooses; else the plain one."""
        activations = self._new(context, "F32", N_COLUMNS, CHUNK_TOKENS)
        multiply = function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)
        product = multiply(context, matrix, activations)
        tensor = Tensor.from_address(matrix)
        supports = function("ggml_backend_dev_supports_op", ctypes.c_bool, _pointer, _pointer)
        for layout in self._layouts():
            empty = function("ggml_backend_buft_alloc_buffer", _pointer, _pointer, _size)(layout, 0)
            tensor.buffer = empty
            is_able = supports(self._device, product)
            tensor.buffer = None
            function("ggml_backend_buffer_free", None, _pointer)(empty)
            if is_able:
                return layout
        return int(self._plain)

    def _layouts(self) -> Iterator[int]:
        registry = function("ggml_backend_dev_backend_reg", _pointer, _pointer)(self._device)
        find = function("ggml_backend_reg_get_proc_address", _pointer, _pointer, ctypes.c_char_p)
        address = find(registry, b"ggml_backend_dev_get_extra_bufts")
        if not address:
            return
        listed = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(self._device)
        number = 0
        while listed and listed[number]:
            yield int(listed[number])
            number += 1

    @contextmanager
    def _context(self) -> Iterator[int]:
        """Room for the description of some tensors and a graph, without their data."""
        overhead = function("ggml_tensor_overhead", _size)()
        graph = function("ggml_graph_overhead", _size)()
        params = _InitParams(2 * (self._n_matrices + 8) * overhead + graph, None, True)
        context = function("ggml_init", _pointer, _InitParams)(params)
        try:
            yield context
        finally:
            function("ggml_free", None, _pointer)(context)

    @contextmanager
    def _allocated(self, context: int, layout: int) -> Iterator[None]:
        make = function("ggml_backend_alloc_ctx_tensors_from_buft", _pointer, _pointer, _pointer)
        buffer = make(context, layout)
        if not buffer:
            raise EngineFailed("There is no memory for the matrices: free some, or measure later.")
        try:
            yield
        finally:
            function("ggml_backend_buffer_free", None, _pointer)(buffer)

    def close(self) -> None:
        if self._backend:
            function("ggml_backend_free", None, _pointer)(self._backend)
            self._backend = None


def packed(values: np.ndarray[Any, Any], kind: GGMLType) -> np.ndarray[Any, Any]:
    """float32 [n_rows, n_columns] as bytes of a type. Quantizing takes longest: a few rows are repeated."""
    if kind.name in ("F32", "F16"):
        return values.astype(np.float32 if kind.name == "F32" else np.float16).view(np.uint8)
    if kind.name == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    n_rows = 32
    few = np.ascontiguousarray(values[:n_rows])
    out = np.empty(few.size // kind.block * kind.n_bytes, np.uint8)
    pack = function(
        "ggml_quantize_chunk", _size, _int, _pointer, _pointer, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_int64, _pointer,
    )  # fmt: skip
    number = TYPE_NUMBERS[kind.name]
    pack(number, few.ctypes.data, out.ctypes.data, 0, n_rows, values.shape[1], None)
    return np.tile(out, len(values) // n_rows)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="edgeagent.engine.llama.tensor_speed", description=__doc__
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each product")
    parser.add_argument("--weights", type=int, default=N_ROWS * N_COLUMNS, help="number of weights")
    parser.add_argument("--limit", type=float, default=8.0, help="seconds for everything")
    args = parser.parse_args(arguments)
    bindings.start()
    confinement.enter(read=[])
    deadline = time.monotonic() + args.limit
    n_matrices = min(MAX_MATRICES, max(1, args.weights // (N_ROWS * N_COLUMNS)))
    try:
        matrices = Matrices(n_matrices, args.threads)
        for kind in TYPES:
            if kind != TYPES[0] and time.monotonic() > deadline:
                break
            _say({"doing": kind})
            _say({"type": kind, "rate": matrices.rate(kind)})
        matrices.close()
    except EdgeAgentError as exc:
        _say({"error": exc.message})
        return 1
    return 0


def _say(message: dict[str, Any]) -> None:
    print(msgspec.json.encode(message).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
