"""The next token of one sequence: penalties in numpy, then llama.cpp's sampler chain."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from typing import Any

import numpy as np

from edgeagent.engine.chain import Candidates, Chain
from edgeagent.types import Sampling


class Sampler:
    """Draws the tokens of one sequence. Engine thread only; `close()` may be called twice.

    Without temperature, penalties and bias a token costs one argmax. Penalties touch only the tokens
    that occurred, not the vocabulary.
    """

    def __init__(
        self, sampling: Sampling, n_vocab: int, prompt_tail: list[int], answer: int
    ) -> None:
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(32)
        self._sampling = sampling
        self._chain = None
        if sampling.temperature > 0:
            self._chain = Chain(sampling, (seed + answer) & 0xFFFFFFFF)
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float32)
        assert self._bias_ids.size == 0 or self._bias_ids.max() < n_vocab
        self._recent: deque[int] = deque(prompt_tail, maxlen=max(1, sampling.repeat_last_n))
        self._generated: Counter[int] = Counter()
        self._repeats = sampling.repeat_penalty != 1.0 and sampling.repeat_last_n > 0
        self._counts = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0

    def pick(self, logits: np.ndarray[Any, Any], candidates: Candidates) -> int:
        """The next token from logits: float32 [n_vocab], changed in place by bias and penalties."""
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if self._repeats:
            self._penalize_repeats(logits)
        if self._counts and self._generated:
            self._penalize_counts(logits)
        chain = self._chain
        token = int(logits.argmax()) if chain is None else candidates.draw(chain, logits)
        self._accept(token)
        return token

    def _accept(self, token: int) -> None:
        if self._repeats:
            self._recent.append(token)
        if self._counts:
            self._generated[token] += 1

    def _penalize_repeats(self, logits: np.ndarray[Any, Any]) -> None:
        ids = np.fromiter(set(self._recent), np.int64)
        values = logits[ids]
        penalty = np.float32(self._sampling.repeat_penalty)
        logits[ids] = np.where(values > 0, values / penalty, values * penalty)

    def _penalize_counts(self, logits: np.ndarray[Any, Any]) -> None:
        ids = np.fromiter(self._generated.keys(), np.int64)
        counts = np.fromiter(self._generated.values(), np.float32)
        logits[ids] -= (
            np.float32(self._sampling.presence_penalty)
            + np.float32(self._sampling.frequency_penalty) * counts
        )

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()
            self._chain = None
