"""A thread for what needs the vocabulary but not the context: text to tokens and back."""

from __future__ import annotations

from typing import Any

from edgeagent.engine import protocol
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import InvalidParameter
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.unary_requests import DetokenizeSpec, TokenizeSpec
from edgeagent.worker.channel import Channel
from edgeagent.worker.job_thread import JobThread


class TokenizerThread(JobThread):
    """Tokenizes and detokenizes, one job after another. Any thread may call it."""

    def __init__(self, config: EngineConfig, llama: Llama, channel: Channel) -> None:
        super().__init__(
            channel, config.model_id, config.queue_limit, name="tokenizer", activity="Tokenizing"
        )
        self._llama = llama

    def answer(self, request_id: int, question: TokenizeSpec | DetokenizeSpec) -> None:
        """Tokenize or detokenize, and send the result."""

        def job() -> None:
            value: Any
            if isinstance(question, TokenizeSpec):
                value = list(
                    self._llama.tokens_of(
                        question.text,
                        add_special=question.add_special,
                        parse_special=question.parse_special,
                    )
                )
            else:
                check_ids(question.tokens, self._llama.n_vocab, "tokens")
                value = self._llama.detokenize(question.tokens)
            self._channel.send(protocol.Result(request_id, value))

        self.put(request_id, job)


def check_ids(tokens: list[int], n_vocab: int, param: str) -> None:
    """Raises: InvalidParameter for an id that the vocabulary does not have."""
    for token in tokens:
        if not 0 <= token < n_vocab:
            raise InvalidParameter(
                f"`{param}` has token {token}, the vocabulary has ids 0 to {n_vocab - 1}: use ids of "
                "this model, or send text.",
                param=param,
            )
