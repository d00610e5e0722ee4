"""The worker process that scores: `python -m edgeagent.optimize.worker FD COMMAND_PID`.

It is confined like the daemon's workers: it can read its model and write nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.optimize.kept_tokens import KeptTokens, SentTokens
from edgeagent.optimize.protocol import (
    AlterWeights,
    ChatText,
    CollectImportance,
    Done,
    RenderChat,
    Reply,
    RoundingErrors,
    ScoreChunk,
    ScoringConfig,
    ScoringFacts,
    SetImportance,
    TimeRun,
    TokenizeText,
    Tokens,
    decode_to_worker,
)
from edgeagent.optimize.scorer import load as load_scorer
from edgeagent.optimize.scorer import n_scored
from edgeagent.types.worker_config import ComputeLimits, WorkerHealth
from edgeagent.worker import confinement, entry
from edgeagent.worker.channel import Channel
from edgeagent.worker.loop import Loop
from edgeagent.worker.protocol import Cancel, Result


class ScoringWorker:
    """One loaded model that answers one command, one request after another. Main thread only."""

    def __init__(self, channel: Channel, config: ScoringConfig, started_s: float) -> None:
        self._channel = channel
        self._loop = Loop(channel)
        self._scorer = load_scorer(config)
        self._waiting: deque[Any] = deque()
        self._n_steps = 0
        self._facts = ScoringFacts(
            pid=os.getpid(),
            load_ms=1e3 * (time.monotonic() - started_s),
            n_vocab=self._scorer.n_vocab,
            n_params=self._scorer.n_params,
            n_ctx_train=self._scorer.n_ctx_train,
            weights_bytes=self._scorer.weights_bytes,
            rss_bytes=confinement.rss_bytes(),
            bos=self._scorer.bos if self._scorer.adds_bos else None,
        )

    def run(self) -> None:
        self._loop.run(self._facts, self, self._handle, confinement.rss_bytes)

    def _handle(self, message: Any) -> None:
        if isinstance(message, Cancel):
            self._loop.post(lambda: self._drop(message.request_id))
        else:
            self._loop.post(lambda: self._waiting.append(message))

    def _drop(self, request_id: int) -> None:
        self._waiting = deque(one for one in self._waiting if one.request_id != request_id)

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def step(self) -> bool:
        if not self._waiting:
            return False
        message = self._waiting.popleft()
        self._n_steps += 1
        try:
            self._channel.send(Result(message.request_id, self._answer(message)))
        except EdgeAgentError as exc:
            self._channel.refuse(message.request_id, exc)
        return True

    def _answer(self, message: Any) -> Reply:
        scorer = self._scorer
        match message:
            case TokenizeText(_, text, special):
                ids = scorer.tokens_of(text, add_special=True, parse_special=special)
                return Tokens(ids.tobytes())
            case ScoreChunk(_, tokens, n_top, n_tail, seed, ids):
                chunk = np.frombuffer(tokens, np.int32)
                kept = (
                    SentTokens(self._sent(ids, len(chunk)))
                    if ids
                    else KeptTokens(n_top, n_tail, seed)
                )
                return scorer.score(chunk, kept)
            case TimeRun(_, n_prompt, n_decode):
                return scorer.time_run(n_prompt, n_decode)
            case CollectImportance(_, tokens, endings):
                return scorer.activations(np.frombuffer(tokens, np.int32), endings)
            case SetImportance(_, columns):
                scorer.opened().set_importance(columns)
                return Done()
            case AlterWeights(_, types, zero_columns, plain):
                scorer.opened().alter(types, zero_columns, plain)
                return Done()
            case RoundingErrors(_, name, types, stride):
                return scorer.opened().errors(name, types, stride)
            case RenderChat(_, messages):
                return ChatText(scorer.chat_text(messages))
        raise EdgeAgentError(f"A scoring worker does not know {type(message).__name__}.")

    def _sent(self, ids: bytes, n_tokens: int) -> np.ndarray[Any, Any]:
        sent = np.frombuffer(ids, np.int32)
        n = max(1, n_scored(n_tokens))
        if len(sent) % n or int(sent.min()) < 0 or int(sent.max()) >= self._scorer.n_vocab:
            raise InvalidParameter(
                f"{len(sent)} token ids for {n} positions: send as many for each, below "
                f"{self._scorer.n_vocab}."
            )
        return sent.reshape(n, -1)

    def limit(self, limits: ComputeLimits) -> None:
        self._scorer.set_threads(limits.n_threads)

    def health(self, rss_bytes: int) -> WorkerHealth:
        return WorkerHealth(
            n_steps=self._n_steps, n_waiting=len(self._waiting), rss_bytes=rss_bytes
        )


def load(
    channel: Channel, config: ScoringConfig, command_pid: int, started_s: float
) -> ScoringWorker:
    confinement.enter(read=[config.path], parent=command_pid)
    inspect(config.path)
    return ScoringWorker(channel, config, started_s)


if __name__ == "__main__":
    entry.run(sys.argv, decode_to_worker, load)
