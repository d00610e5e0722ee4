"""One model that scores chunks of tokens and is timed. Worker side.

Perplexity is defined as llama-perplexity of llama.cpp defines it: a text is cut into chunks of n_ctx tokens;
the first half of a chunk is context, and each token of the second half is predicted from all before it. The
first token of a chunk becomes BOS where the vocabulary asks for one.
"""

from __future__ import annotations

import ctypes
import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeagent.engine.llama.bindings import lib
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EngineFailed, InvalidParameter
from edgeagent.optimize.kept_tokens import KeptTokens, SentTokens
from edgeagent.optimize.open_weights import OpenWeights
from edgeagent.optimize.protocol import ActivationSums, ChunkScores, RunTimes, ScoringConfig
from edgeagent.worker import confinement

# Rows of logits that are normalised at once: 64 rows of 49,152 tokens take 13 MB.
_ROWS = 64


def n_scored(n_tokens: int) -> int:
    """How many tokens of a chunk are scored: those after its first half."""
    return n_tokens - n_tokens // 2 - 1


class Scorer(Llama):
    """One sequence with logits after every token. Main thread only."""

    weights: OpenWeights | None = None

    def _context_params(self, config: Any) -> Any:
        params = super()._context_params(config)
        if config.is_scoring:
            params.n_outputs_max = min(config.n_batch, config.n_ctx // 2 + 1)
        if config.is_open:
            self.weights = OpenWeights()
            params.cb_eval = self.weights.watch.callback
        return params

    def score(self, tokens: np.ndarray[Any, Any], kept: KeptTokens | SentTokens) -> ChunkScores:
        """Scores of a chunk, int32 [n], with those of the tokens `kept`. Raises: InvalidParameter."""
        n = len(tokens)
        if not 4 <= n <= self.n_ctx:
            raise InvalidParameter(f"A chunk has {n} tokens: send 4 to {self.n_ctx}.")
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.n_vocab:
            raise InvalidParameter(f"A token is outside of the vocabulary of {self.n_vocab}.")
        fed = array("i", tokens.astype(np.int32).tobytes())
        if self.adds_bos and self.bos is not None:
            fed[0] = self.bos
        self.clear()
        first, rows = n // 2, _Rows(kept)
        for start in range(0, n - 1, len(self.batch.token)):
            part = fed[start : min(n - 1, start + len(self.batch.token))]
            n_outputs = max(0, min(len(part), start + len(part) - first))
            self.batch.clear()
            self.batch.add(0, part, start, n_outputs=n_outputs)
            if n_outputs:
                behind = start + len(part) - n_outputs + 1
                rows.add(self.decode(), tokens[behind : behind + n_outputs])
            else:
                self.decode_silently()
        return rows.scores()

    def decode_silently(self) -> None:
        """Run a batch without outputs, which `decode` would look for."""
        self.batch.output[self.batch.struct.n_tokens - 1] = 1
        self.batch.n_outputs = 1
        self.decode()

    def activations(
        self, tokens: np.ndarray[Any, Any], endings: tuple[str, ...] = ()
    ) -> ActivationSums:
        """The squared activations of the matrices over a chunk. Raises: InvalidParameter."""
        with self.opened().collecting(endings) as sums:
            self.score(tokens, KeptTokens(0, 0, 0))
        return sums.result()

    def opened(self) -> OpenWeights:
        """The weights, which may be read and altered. Raises: InvalidParameter, EngineFailed."""
        if self.weights is None:
            raise InvalidParameter("The weights of this worker are closed: load it with is_open.")
        if self.weights.watch.failure is not None:
            raise EngineFailed(str(self.weights.watch.failure))
        return self.weights

    def chat_text(self, messages: Sequence[tuple[str, str]]) -> str:
        """Messages by the model's chat template, which llama.cpp must know. Raises: InvalidParameter."""
        template = lib.llama_model_chat_template(self._model, None)
        rows = (lib.llama_chat_message * len(messages))()
        for row, (role, content) in zip(rows, messages, strict=True):
            row.role, row.content = role.encode(), content.encode("utf-8", "surrogatepass")
        size = 0
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size + 1)
            size = int(
                lib.llama_chat_apply_template(template, rows, len(rows), False, buffer, size)
            )
            if not template or size < 0:
                raise InvalidParameter(
                    "This model has no chat template that llama.cpp knows: write the chats out as text."
                )
        return buffer.raw[:size].decode("utf-8", "replace")

    def time_run(self, n_prompt: int, n_decode: int) -> RunTimes:
        """Time a prompt of tokens spread over the vocabulary, and the tokens after it."""
        if not 1 <= n_prompt <= self.n_ctx - n_decode:
            raise InvalidParameter(
                f"{n_prompt} prompt tokens and {n_decode} more do not fit into a context of {self.n_ctx}."
            )
        tokens = array("i", [(7919 * i + 13) % self.n_vocab for i in range(n_prompt + n_decode)])
        self.clear()
        started = time.perf_counter()
        for start in range(0, n_prompt, len(self.batch.token)):
            self.batch.clear()
            part = tokens[start : min(n_prompt, start + len(self.batch.token))]
            self.batch.add(0, part, start, n_outputs=1)
            self.decode()
        prefill_s = time.perf_counter() - started
        times = []
        for at in range(n_prompt, n_prompt + n_decode):
            started = time.perf_counter()
            self.batch.clear()
            self.batch.add(0, tokens[at : at + 1], at, n_outputs=1)
            self.decode()
            times.append(time.perf_counter() - started)
        return RunTimes(prefill_s, tuple(times), confinement.rss_bytes())


class _Rows:
    """What is kept of the logits of one chunk."""

    def __init__(self, kept: KeptTokens | SentTokens) -> None:
        self._kept = kept
        self._parts: list[tuple[np.ndarray[Any, Any], ...]] = []

    def add(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> None:
        """Take float32 [n, n_vocab] and the int32 [n] tokens that follow."""
        for at in range(0, len(targets), _ROWS):
            self._add(logits[at : at + _ROWS], targets[at : at + _ROWS])

    def _add(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> None:
        peak = logits.max(axis=1, keepdims=True)
        norm = peak + np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        if not np.isfinite(norm).all():
            raise EngineFailed(
                "The model predicts values that are no numbers: it has damaged weights; get its file anew."
            )
        logp = logits - norm
        nll = -logp[np.arange(len(targets)), targets]
        ids = self._kept.of(logp)
        self._parts.append(
            (nll, logits.argmax(axis=1), ids, np.take_along_axis(logp, ids.astype(np.int64), 1))
        )

    def scores(self) -> ChunkScores:
        nll, best, ids, logp = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return ChunkScores(
            nll.astype(np.float32).tobytes(),
            best.astype(np.int32).tobytes(),
            ids.astype(np.int32).tobytes() if isinstance(self._kept, KeptTokens) else b"",
            logp.astype(np.float32).tobytes(),
        )


def load(config: ScoringConfig) -> Scorer:
    """Load a model and compute one token, so that its weights are in memory. Raises: ModelUnusable."""
    scorer = Scorer(config)
    scorer.warm_up()
    return scorer
