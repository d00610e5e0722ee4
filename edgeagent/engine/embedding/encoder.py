"""A model that turns texts into vectors or scores, on llama.cpp: many texts, one pass each step.

Pooling (mean, first token, last token) and whether attention looks ahead are the file's own. Every
text is a sequence of its own within the step, and nothing stays in the context between steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeagent.engine.llama.batch import StepAborted
from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.model import FLASH, Llama
from edgeagent.errors import EngineFailed, ModelUnusable
from edgeagent.types.engine_config import EngineConfig

_ABORTED = 2
# Kinds of pooling that give one vector for a text; "none" is a vector per token.
_ONE_VECTOR = (lib.LLAMA_POOLING_TYPE_MEAN, lib.LLAMA_POOLING_TYPE_CLS, lib.LLAMA_POOLING_TYPE_LAST)
# llama.h: the attributes of tokens that are no plain text.
_USER_DEFINED, _CONTROL = 1 << 4, 1 << 3
_WORD_PIECE = 3  # llama.h: enum llama_vocab_type


class Encoder(Llama):
    """One loaded embedding model, or a cross-encoder. Engine thread only, except `abort` and the
    vocabulary. `width` counts the numbers that a text gives. `n_parallel` texts are computed side by side,
    each by one thread; 1: all threads compute all texts of a step."""

    n_parallel = 1

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        try:
            self.width = self._scores() if config.task == "rerank" else self._dimensions()
        except BaseException:
            self.close()
            raise
        self.n_text = min(config.n_ctx, self.n_ctx_train) if self.n_ctx_train > 0 else config.n_ctx
        self.n_texts = min(config.n_seq, int(lib.llama_n_seq_max(self.context)))
        marks = (lib.llama_vocab_sep(self._vocab), lib.llama_vocab_eos(self._vocab))
        self.end_marks = frozenset(int(mark) for mark in marks if mark >= 0)
        # Without memory there is nothing that could be computed from before.
        self._is_causal = self.memory is not None and bool(self.memory)

    def _dimensions(self) -> int:
        pooling = lib.llama_pooling_type(self.context)
        if pooling not in _ONE_VECTOR:
            raise ModelUnusable(
                f"{self._model_id} does not say how the vectors of its tokens become one (pooling type "
                f"{pooling}): mean, cls and last can be served, convert the model with one of them."
            )
        return int(lib.llama_model_n_embd_out(self._model))

    def _scores(self) -> int:
        pooling = lib.llama_pooling_type(self.context)
        n_scores = int(lib.llama_model_n_cls_out(self._model))
        if pooling != lib.LLAMA_POOLING_TYPE_RANK:
            raise ModelUnusable(
                f"{self._model_id} is no cross-encoder (pooling type {pooling}): one that ranks has "
                f"{lib.LLAMA_POOLING_TYPE_RANK}."
            )
        # llama.cpp makes probabilities of yes and no for this one; elsewhere two classes may mean anything.
        if n_scores != 1 and self.meta("general.architecture") != "qwen3":
            raise ModelUnusable(
                f"{self._model_id} tells {n_scores} classes apart: one that ranks has a single score."
            )
        return n_scores

    def _create_context(self, config: EngineConfig) -> Any:
        self._model_id = config.model_id
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
                "lower engine.n_ctx or engine.n_batch."
            )
        return context

    def encode(self, texts: Sequence[array[int]]) -> np.ndarray[Any, Any]:
        """What the model makes of each text: float32 [n_texts, width].

        Raises: Aborted; EngineFailed when llama.cpp reports an error.
        """
        batch = self.batch
        batch.clear()
        for i, tokens in enumerate(texts):
            batch.add(i, tokens, 0, n_outputs=1)
        batch.output[: batch.struct.n_tokens] = 1  # pooling wants them all
        if self._is_causal:
            self.clear()
        run = lib.llama_decode if self._is_causal else lib.llama_encode
        status = run(self.context, batch.struct)
        if status == _ABORTED:
            raise StepAborted
        if status != 0:
            raise EngineFailed(
                f"llama.cpp failed a step of {len(texts)} texts with status {status}."
            )
        vectors = np.empty((len(texts), self.width), np.float32)
        for i in range(len(texts)):
            pointer = lib.llama_get_embeddings_seq(self.context, i)
            if not pointer:
                raise EngineFailed(f"llama.cpp gave no vector for text {i} of {len(texts)}.")
            vectors[i] = np.ctypeslib.as_array(pointer, (self.width,))
        return vectors

    def warm_up(self) -> None:
        """Compute one token, so that the weights are in memory before the first request."""
        self.encode([array("i", [self.bos or 0])])

    # --- pairs

    @property
    def pair_marks(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before a query, between it and a document, and after that."""
        sep, eos = _mark(lib.llama_vocab_sep(self._vocab)), _mark(lib.llama_vocab_eos(self._vocab))
        closing = (eos or sep) if lib.llama_vocab_get_add_eos(self._vocab) else []
        doubled = sep if self._adds_sep() else []
        begin = [self.bos] if self.adds_bos and self.bos is not None else []
        return begin, closing + doubled, closing or doubled

    def _adds_sep(self) -> bool:
        """Files from before llama.cpp had a key for it were all read with one."""
        if (
            lib.llama_vocab_type(self._vocab) != _WORD_PIECE
            and self.meta("tokenizer.ggml.add_sep_token") is None
        ):
            return True
        return bool(lib.llama_vocab_get_add_sep(self._vocab))

    @property
    def rank_template(self) -> str | None:
        """The text around a query and a document, where the file has one."""
        text = lib.llama_model_chat_template(self._model, b"rerank")
        return text.decode("utf-8", "replace") if text else None

    def special_names(self, text: str) -> list[str]:
        """The special tokens that occur in a text, by their names. A walk through the vocabulary."""
        special = _USER_DEFINED | _CONTROL
        found = (
            self.text_of(token)
            for token in range(self.n_vocab)
            if lib.llama_vocab_get_attr(self._vocab, token) & special
        )
        return [name for name in found if name and name in text]

    def kv_bytes(self) -> int:
        """Size of keys and values: none where nothing is kept between tokens."""
        return super().kv_bytes() if self._is_causal else 0


def _mark(token: int) -> list[int]:
    return [token] if token >= 0 else []


def step_capacity(config: EngineConfig) -> int:
    """Tokens that one step may have at most: `n_batch` usually, more for a single long text."""
    return max(config.n_batch, config.n_ctx)
