"""The base of the writers of chats and completions: the texts so far, and the end of a stream."""

from __future__ import annotations

import hashlib
import secrets
import time
from functools import cache
from typing import Any

import msgspec

from edgeagent.api.http.dialects import openai_error
from edgeagent.api.http.errors import status_of
from edgeagent.api.http.response_sender import EVENT_STREAM
from edgeagent.api.http.tool_calls import CallCollector
from edgeagent.api.openai.usage import timings_of, usage_of
from edgeagent.errors import EdgeAgentError
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.serving.answer_extensions import answer_extension
from edgeagent.serving.logprobs import Speller
from edgeagent.types.answer import PromptFacts, TokenChunk, TokenLogprob
from edgeagent.types.version import VERSION

DONE = b"data: [DONE]\n\n"


class AnswerWriter:
    """The parts of a `stream.Writer` that both endpoints share. One for each response.

    `head` has the first fields of every object of the response.
    """

    content_type = EVENT_STREAM
    ping: bytes | None = b": ping\n\n"

    def __init__(self, prefix: str, kind: str, model: str, *, wants_usage: bool) -> None:
        self.head: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint(model),
        }
        self._wants_usage = wants_usage
        self._texts: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._spellers: dict[int, Speller] = {}
        self.calls = CallCollector()

    def decided(self, decision: Decision) -> None:
        model = decision.name
        self.head |= {"model": model, "system_fingerprint": fingerprint(model)}

    def collect(self, chunks: list[TokenChunk]) -> None:
        """Keep chunks for an answer that is not streamed."""
        for chunk in chunks:
            self._texts.setdefault(chunk.index, []).append(chunk.text)
            if chunk.reasoning:
                self._reasoning.setdefault(chunk.index, []).append(chunk.reasoning)
            if chunk.logprobs:
                self._logprobs.setdefault(chunk.index, []).extend(chunk.logprobs)
            if chunk.calls:
                self.calls.add(chunk.index, chunk.calls)

    def text(self, index: int) -> str:
        """The collected text of answer `index`."""
        return "".join(self._texts.get(index, []))

    def logprobs(self, index: int) -> list[TokenLogprob]:
        """The tokens of answer `index` with their log-probabilities."""
        return self._logprobs.get(index, [])

    def speller(self, index: int) -> Speller:
        """The speller of the streamed tokens of answer `index`."""
        return self._spellers.setdefault(index, Speller())

    def opening(self, facts: PromptFacts | None) -> bytes:
        return b""

    def reasoning(self, index: int) -> str:
        """The reasoning section of answer `index`; empty without one."""
        return "".join(self._reasoning.get(index, []))

    def last_events(self, answer: Answer) -> bytes:
        """The usage, where it was requested, and [DONE]."""
        if not self._wants_usage:
            return DONE
        usage = msgspec.json.encode(self.head | {"choices": []} | totals(answer))
        return b"data: " + usage + b"\n\n" + DONE

    def error_events(self, error: EdgeAgentError) -> bytes:
        body = msgspec.json.encode(openai_error(error, status_of(error)))
        return b"data: " + body + b"\n\n" + DONE


@cache
def fingerprint(model: str) -> str:
    """OpenAI's `system_fingerprint`: changes with the model and with the version of edgeagent."""
    return f"fp_{hashlib.sha256(f'{VERSION} {model}'.encode()).hexdigest()[:10]}"


def totals(answer: Answer) -> dict[str, Any]:
    """Token counts, times and the extension, for whole answers and the end of a stream."""
    return {"usage": usage_of(answer), "timings": timings_of(answer)} | answer_extension(answer)
