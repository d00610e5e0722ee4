"""Log-probabilities of the tokens of an answer, sent together with the text of each token.

In a free answer a log-probability is that of the model itself: bias, penalties, temperature and top_k do not
change it. In a structured answer it is that among the allowed tokens, so that a forced token has 0.0.

A token may become text late or in part: bytes of a code point wait for the others, a stop string cuts the
text before it, the parser removes reasoning and calls. Every byte therefore knows its character, and an entry
is sent once all of its characters were sent, or are known not to be text. The pieces of all entries add up to
the text, byte by byte.
"""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.types.answer import TokenLogprob, TopLogprob

# OpenAI's value for a token that is practically impossible: JSON has no infinity.
LEAST = -9999.0

# First and last character of a range of what was read; the last one is excluded.
Span = Sequence[int]


class _PendingToken(NamedTuple):
    """A token that is not text yet: the number of the character of each byte, and of the first one."""

    entry: TokenLogprob
    characters: list[int]
    at: int


class Logprobs:
    """The log-probabilities of one answer, each with the `n_top` most probable tokens. Engine thread only."""

    def __init__(self, n_top: int) -> None:
        self._n_top = n_top
        self._raw: np.ndarray[Any, Any] | None = None
        self._scores: dict[int, tuple[float, list[TopLogprob]]] = {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._n_read = 0
        self._n_said = 0
        self._heard: deque[_PendingToken] = deque()

    # --- before and after a draw

    def weigh(self, logits: np.ndarray[Any, Any], mask: bytes | None) -> None:
        """Keep the logits (float32 [n_vocab]) of what may be drawn, before a sampler changes them."""
        raw = logits.copy()
        if mask is not None:
            packed = np.frombuffer(mask, np.uint8)
            is_allowed = np.unpackbits(packed, count=len(raw), bitorder="little").view(np.bool_)
            raw[~is_allowed] = -np.inf
        self._raw = raw

    def drew(self, number: int, token: int, runner: Runner) -> None:
        """Token `number` of the answer was drawn."""
        raw, self._raw = self._raw, None
        assert raw is not None, "weigh comes first"
        self._scores[number] = scored(raw, token, self._n_top, runner)

    # --- from tokens to text

    def hear(self, number: int, piece: bytes, marker: str | None = None) -> None:
        """Read token `number`: its bytes, or the name of a marker."""
        if marker is not None:
            piece = marker.encode()
        at = self._n_read
        characters = []
        for byte in piece:
            n_new = len(self._decoder.decode(bytes([byte])))
            is_torn = bool(self._decoder.getstate()[0])
            characters.append(self._n_read + n_new - (not is_torn))
            self._n_read += n_new
        logprob, top = self._scores.pop(number, (0.0, None))
        if top is None:  # forced: no other token was possible
            top = [TopLogprob(piece, 0.0)] if self._n_top else []
        self._heard.append(_PendingToken(TokenLogprob(piece, logprob, top), characters, at))

    def forget_last(self) -> None:
        """Drop the last token, which is not part of the answer."""
        self._decoder.reset()
        if self._heard:
            self._heard.pop()

    def tell(
        self, n_new: int, passed: Sequence[Span] | None, *, is_end: bool
    ) -> list[TokenLogprob]:
        """The entries of `n_new` more characters of text. `passed` are the spans of what was read that
        are text; None: all of it."""
        self._n_said += n_new
        told = [(0, self._n_said)] if passed is None else _cut(passed, self._n_said)
        bound = told[-1][1] if told else 0
        out = []
        while self._heard and (is_end or self._is_over(self._heard[0], bound)):
            entry, characters, at = self._heard.popleft()
            kept = bytes(
                byte
                for byte, character in zip(entry.piece, characters, strict=True)
                if any(first <= character < last for first, last in told)
            )
            if kept or (not entry.piece and any(first <= at <= last for first, last in told)):
                out.append(TokenLogprob(kept, entry.logprob, entry.top))
        return out

    @staticmethod
    def _is_over(heard: _PendingToken, bound: int) -> bool:
        return heard.characters[-1] < bound if heard.characters else heard.at < bound


def _cut(spans: Sequence[Span], n: int) -> list[tuple[int, int]]:
    """The first `n` characters of some spans."""
    found = []
    for first, last in spans:
        if n <= 0:
            break
        found.append((first, min(last, first + n)))
        n -= last - first
    return found


def scored(
    raw: np.ndarray[Any, Any], token: int, n_top: int, runner: Runner
) -> tuple[float, list[TopLogprob]]:
    """The log-probability of a token by scores (float32 [n_vocab]), and the `n_top` most probable ones."""
    best = raw.max()
    whole = float(best) + math.log(float(np.exp(raw - best).sum(dtype=np.float64)))
    top: list[TopLogprob] = []
    if n_top:
        n = min(n_top, len(raw))
        # From the best on: with many equal scores, as a mask leaves, a partition at the end takes 6 ms.
        ids = np.argpartition(-raw, n - 1)[:n]
        ids = ids[np.argsort(-raw[ids], kind="stable")]
        top = [
            TopLogprob(spelled(int(i), runner), float(raw[i]) - whole)
            for i in ids
            if raw[i] > -np.inf
        ]
    return max(LEAST, float(raw[token]) - whole), top


def spelled(token: int, runner: Runner) -> bytes:
    """The bytes of a token, or its name if it adds no text."""
    return runner.piece(token) or runner.name(token).encode()
