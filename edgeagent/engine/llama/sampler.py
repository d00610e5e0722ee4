"""The next token of one sequence: penalties in numpy, then llama.cpp's sampler chain."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from typing import Any

import numpy as np

from edgeagent.engine.llama.sampler_chain import TOP_K_BEFORE_SORTING, Candidates, SamplerChain
from edgeagent.types.sampling import Sampling

# With more than these allowed, filters that cannot bear a logit of minus infinity never meet one: they
# work on the first so many only.
FEW = TOP_K_BEFORE_SORTING


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
            self._chain = SamplerChain(sampling, (seed + answer) & 0xFFFFFFFF)
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float32)
        assert self._bias_ids.size == 0 or self._bias_ids.max() < n_vocab
        self._recent: deque[int] = deque(prompt_tail, maxlen=max(1, sampling.repeat_last_n))
        self._generated: Counter[int] = Counter()
        self._repeats = sampling.repeat_penalty != 1.0 and sampling.repeat_last_n > 0
        self._counts = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0

    def pick(
        self, logits: np.ndarray[Any, Any], candidates: Candidates, mask: bytes | None = None
    ) -> int:
        """The next token from logits: float32 [n_vocab], changed in place by bias, penalties and mask.

        With a `mask` (one bit each, lowest first, not all zero) one of its tokens.
        """
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if self._repeats:
            self._penalize_repeats(logits)
        if self._counts and self._generated:
            self._penalize_counts(logits)
        chain = self._chain
        if mask is not None:
            token = self._pick_within(logits, candidates, mask)
        else:
            token = int(logits.argmax()) if chain is None else candidates.draw(chain, logits)
        self.accept(token)
        return token

    def _pick_within(
        self, logits: np.ndarray[Any, Any], candidates: Candidates, mask: bytes
    ) -> int:
        """Few allowed tokens are taken out, which is faster than to blot out the others."""
        chain = self._chain
        packed = np.frombuffer(mask, np.uint8)
        is_allowed = np.unpackbits(packed, count=len(logits), bitorder="little").view(np.bool_)
        n_allowed = int(np.count_nonzero(is_allowed))
        if n_allowed <= FEW:
            ids = np.flatnonzero(is_allowed)
            values = logits[ids]
            if chain is None or n_allowed == 1:
                return int(ids[values.argmax()])
            return candidates.draw(chain, values, ids)
        np.copyto(logits, -np.inf, where=~is_allowed)
        if chain is None:
            return int(logits.argmax())
        token = candidates.draw(chain, logits)
        # A draw that rounding carries to its end could take what has no weight.
        return token if is_allowed[token] else int(logits.argmax())

    def accept(self, token: int) -> None:
        """Count a token that was drawn, or that came without a draw."""
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
