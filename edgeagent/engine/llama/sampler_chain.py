"""llama.cpp's samplers: the chain of one answer, and the array that all chains work on."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edgeagent.engine.llama.bindings import lib
from edgeagent.types.sampling import Sampling

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)
# top_p and typical sort what they get: 3.8 ms a token on 49k candidates, 0.4 ms on the first 1024
# (EPYC Zen 5, 2026-11). What lies beyond rank 1024 has no weight worth a tenfold cost.
TOP_K_BEFORE_SORTING = 1024


class Candidates:
    """The array that sampler chains work on. One for a whole worker, refilled for every draw."""

    def __init__(self, n_vocab: int) -> None:
        self.array = np.zeros(n_vocab, CANDIDATE)
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._struct = lib.llama_token_data_array()
        pointer_type = dict(lib.llama_token_data_array._fields_)["data"]
        self._data = ctypes.cast(self.array.ctypes.data, pointer_type)
        self._reference = ctypes.byref(self._struct)

    def draw(
        self,
        chain: SamplerChain,
        logits: np.ndarray[Any, Any],
        ids: np.ndarray[Any, Any] | None = None,
    ) -> int:
        """Fill from logits (float32 [n_vocab], or one for each of `ids`), apply the chain, return the
        chosen token."""
        n = len(logits)
        self.array["id"][:n] = self._ids if ids is None else ids
        self.array["logit"][:n] = logits
        self._struct.data = self._data
        self._struct.size = n
        self._struct.selected = -1
        self._struct.sorted = False
        lib.llama_sampler_apply(chain.pointer, self._reference)
        assert self._struct.selected >= 0, "the chain ends with a draw"
        return int(self._struct.data[self._struct.selected].id)


class SamplerChain:
    """llama.cpp's samplers in our order: top_k first, since every later filter is slow on a whole
    vocabulary. `close()` may be called twice."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self.pointer = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        top_k = sampling.top_k
        if top_k == 0 and (sampling.top_p < 1 or sampling.typical_p < 1):
            top_k = TOP_K_BEFORE_SORTING
        if top_k > 0:
            self._add(lib.llama_sampler_init_top_k(top_k))
        if sampling.typical_p < 1:
            self._add(lib.llama_sampler_init_typical(sampling.typical_p, 1))
        if sampling.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(lib.llama_sampler_init_temp(sampling.temperature))
        self._add(lib.llama_sampler_init_dist(seed))

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self.pointer, sampler)

    def close(self) -> None:
        if self.pointer is not None:
            lib.llama_sampler_free(self.pointer)
            self.pointer = None
