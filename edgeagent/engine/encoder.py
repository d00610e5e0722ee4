"""A model that turns texts into vectors, on llama.cpp: many texts, one pass each step.

Pooling (mean, first token, last token) and whether attention looks ahead are the file's own. Every
text is a sequence of its own within the step, and nothing stays in the context between steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeagent.engine.llama import FLASH, Aborted, Llama, lib
from edgeagent.errors import EngineFailed, ModelUnusable
from edgeagent.types import EngineConfig

_ABORTED = 2
# Kinds of pooling that give one vector for a text; a rank is one number, "none" a vector per token.
_ONE_VECTOR = (lib.LLAMA_POOLING_TYPE_MEAN, lib.LLAMA_POOLING_TYPE_CLS, lib.LLAMA_POOLING_TYPE_LAST)


class Encoder(Llama):
    """One loaded embedding model. Engine thread only, except `abort` and the vocabulary."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        pooling = lib.llama_pooling_type(self.context)
        if pooling not in _ONE_VECTOR:
            self.close()
            raise ModelUnusable(
                f"{config.model_id} does not say how the vectors of its tokens become one (pooling type "
                f"{pooling}): mean, cls and last can be served, convert the model with one of them."
            )
        self.n_embd = int(lib.llama_model_n_embd_out(self._model))
        self.n_text = min(config.n_ctx, self.n_ctx_train) if self.n_ctx_train > 0 else config.n_ctx
        self.n_texts = min(config.n_seq, int(lib.llama_n_seq_max(self.context)))
        marks = (lib.llama_vocab_sep(self._vocab), lib.llama_vocab_eos(self._vocab))
        self.end_marks = frozenset(int(mark) for mark in marks if mark >= 0)
        # Without memory there is nothing that could be computed from before.
        self._is_causal = self.memory is not None and bool(self.memory)

    def _create_context(self, config: EngineConfig) -> Any:
        params = lib.llama_context_default_params()
        # A text is computed in one piece, so the longest one is the largest step.
        params.n_ctx = params.n_batch = params.n_ubatch = step_capacity(config)
        params.n_seq_max = min(config.n_seq, int(lib.llama_max_parallel_sequences()))
        params.n_threads = params.n_threads_batch = config.n_threads
        params.embeddings = True
        params.flash_attn_type = FLASH[config.flash_attention]
        params.kv_unified = True
        params.no_perf = True
        self._make_abortable(params)
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise ModelUnusable(
                f"No context for texts of {config.n_ctx} tokens could be made for {config.model_id}: "
                "lower n_ctx or n_batch."
            )
        return context

    def encode(self, texts: Sequence[array[int]]) -> np.ndarray[Any, Any]:
        """One vector for each text, as the model pools it: float32 [n_texts, n_embd].

        Raises: Aborted; EngineFailed when llama.cpp reports an error.
        """
        batch = self.batch
        batch.clear()
        for i, tokens in enumerate(texts):
            batch.add(i, tokens, 0, output=True)
        batch.output[: batch.struct.n_tokens] = 1  # pooling wants them all
        if self._is_causal:
            self.clear()
        run = lib.llama_decode if self._is_causal else lib.llama_encode
        status = run(self.context, batch.struct)
        if status == _ABORTED:
            raise Aborted
        if status != 0:
            raise EngineFailed(
                f"llama.cpp failed a step of {len(texts)} texts with status {status}."
            )
        vectors = np.empty((len(texts), self.n_embd), np.float32)
        for i in range(len(texts)):
            pointer = lib.llama_get_embeddings_seq(self.context, i)
            if not pointer:
                raise EngineFailed(f"llama.cpp gave no vector for text {i} of {len(texts)}.")
            vectors[i] = np.ctypeslib.as_array(pointer, (self.n_embd,))
        return vectors

    def warm_up(self) -> None:
        """Compute one token, so that the weights are in memory before the first request."""
        self.encode([array("i", [self.bos or 0])])

    def kv_bytes(self) -> int:
        """Size of keys and values: none where nothing is kept between tokens."""
        return super().kv_bytes() if self._is_causal else 0


def step_capacity(config: EngineConfig) -> int:
    """Tokens that one step may have at most: `n_batch` usually, more for a single long text."""
    return max(config.n_batch, config.n_ctx)
