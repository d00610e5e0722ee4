"""A BERT encoder whose matrices are multiplied as 8-bit integers, by CTranslate2; llama.cpp tokenizes. What
ranks has a head on it, in numpy.

Products of integers run at two to four times the rate of those of floats where the processor has
instructions for them (AVX-512 VNNI, dotprod). A text is computed by one thread, and each of its tokens has a
scale of its own: its vector depends on no other text, and threads do not wait for each other within a text.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.engine.batching.step_runner import StepAborted
from edgeagent.engine.embedding.bert_weights import int8_model
from edgeagent.engine.embedding.encoder import Encoder
from edgeagent.engine.embedding.rank_head import RankHead
from edgeagent.engine.llama import zero_pages
from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import EngineFailed, ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker import confinement
from edgeagent.worker.heap import return_free_pages
from edgeagent.worker.process_environment import compute_with_avx512

logger = logging.getLogger(__name__)

# Texts of so many tokens are computed together: short ones share the products of matrices, and attention
# takes as long as the longest of them.
TOKENS_TOGETHER = 256


def make_encoder(config: EngineConfig) -> Encoder:
    """The encoder that `config` asks for: that of llama.cpp where the file is no plain BERT.

    Raises: ModelUnusable, GGUFRefused.
    """
    if config.int8_kernels is not None:
        try:
            return Int8Encoder(config)
        except ModelUnusable as exc:
            logger.warning("int8_encoder_unused model=%s reason=%r", config.model_id, exc.message)
    return Encoder(config)


class Int8Encoder(Encoder):
    """One loaded embedding model, or a cross-encoder. Used as `Encoder` is, but it computes on threads of its
    own."""

    def __init__(self, config: EngineConfig) -> None:
        self._head = RankHead(Path(config.path)) if config.task == "rerank" else None
        self._bert = _load(config)
        # llama.cpp reads the vocabulary and the facts of the file, and computes nothing.
        super().__init__(msgspec.structs.replace(config, use_mmap=True, repack=False))
        zero_pages.drop(confinement.file_mappings(config.path))
        return_free_pages()
        logger.info("int8_encoder model=%s kernels=%s", config.model_id, config.int8_kernels)
        self.n_parallel = config.n_threads
        pooling = lib.llama_pooling_type(self.context)
        self._takes_first = pooling in (lib.LLAMA_POOLING_TYPE_CLS, lib.LLAMA_POOLING_TYPE_RANK)
        self._threads = ThreadPoolExecutor(config.n_threads, thread_name_prefix="encoder")

    def set_threads(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def encode(self, texts: Sequence[array[int]]) -> np.ndarray[Any, Any]:
        """As `Encoder.encode`; an abort takes effect between two texts."""
        vectors = np.empty((len(texts), self.width), np.float32)
        shares = divided([len(text) for text in texts], self._n_threads)
        running = [self._threads.submit(self._compute, texts, one, vectors) for one in shares]
        errors = [error for future in running if (error := future.exception()) is not None]
        for error in errors:
            if isinstance(error, StepAborted):
                raise error
            raise EngineFailed(
                f"CTranslate2 failed a step of {len(texts)} texts: {error}"
            ) from error
        return vectors

    def _compute(
        self, texts: Sequence[array[int]], numbers: list[int], vectors: np.ndarray[Any, Any]
    ) -> None:
        """The vectors of the texts with these numbers, longest first."""
        for together in batches(numbers, [len(text) for text in texts]):
            if self._flag[0] == b"1":
                raise StepAborted
            found = self._bert.forward_batch([texts[i].tolist() for i in together])
            states = np.asarray(found.last_hidden_state)  # [texts, tokens of the longest, width]
            if self._head is not None:
                vectors[together] = self._head.scores(states[:, 0])
                continue
            for row, i in zip(states, together, strict=True):
                vectors[i] = row[0] if self._takes_first else row[: len(texts[i])].mean(axis=0)

    def close(self) -> None:
        if (threads := getattr(self, "_threads", None)) is not None:
            threads.shutdown()
        self._bert = None
        super().close()


def divided(lengths: Sequence[int], n_shares: int) -> list[list[int]]:
    """The numbers of the texts in shares of about as many tokens, each with its longest text first."""
    shares: list[list[int]] = [[] for _ in range(max(1, n_shares))]
    sums = [0] * len(shares)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        least = sums.index(min(sums))
        shares[least].append(i)
        sums[least] += lengths[i]
    return [share for share in shares if share]


def batches(numbers: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The texts of a share in order, as many at once as have TOKENS_TOGETHER."""
    batch: list[int] = []
    n_tokens = 0
    for i in numbers:
        if batch and n_tokens + lengths[i] > TOKENS_TOGETHER:
            yield batch
            batch, n_tokens = [], 0
        batch.append(i)
        n_tokens += lengths[i]
    if batch:
        yield batch


def _load(config: EngineConfig) -> Any:
    """CTranslate2's encoder. Raises: ModelUnusable, GGUFRefused."""
    if config.int8_kernels == "avx512":
        compute_with_avx512()
    try:
        import ctranslate2
    except ImportError as exc:
        raise ModelUnusable(
            f"CTranslate2 cannot be imported ({exc}): pip install 'edgeagent[embeddings]'."
        ) from exc
    files = int8_model(Path(config.path))
    try:
        return ctranslate2.Encoder(
            config.model_id, device="cpu", compute_type="int8_float32",
            inter_threads=config.n_threads, intra_threads=1, files=files,
        )  # fmt: skip
    except (RuntimeError, ValueError) as exc:
        raise ModelUnusable(f"CTranslate2 refuses {config.model_id}: {exc}") from exc
