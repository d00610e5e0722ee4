"""The answer to a request to generate text: chunks, usage, log-probabilities, notes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgeagent.types.intents import Confidence

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts and times of one answer. `n_prompt` includes `n_cached` tokens from the KV cache,
    `n_generated` includes `n_reasoning` tokens of a reasoning section, and `n_predicted` that the client's
    prediction had right; `n_mispredicted` of it were computed in vain."""

    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float
    ttft_ms: float
    total_ms: float
    n_reasoning: int = 0
    n_predicted: int = 0
    n_mispredicted: int = 0


class PromptFacts(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a request before its first token.

    Its prompts have `n_prompt` tokens, `n_cached` of them from the KV cache. `max_tokens` is the limit of an
    answer if it was lowered to fit; `n_dropped` messages were left out.
    """

    n_prompt: int
    n_cached: int = 0
    max_tokens: int | None = None
    n_dropped: int = 0


class CallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of tool call number `call` of an answer. The first piece of a call has its `name`; the
    `arguments` of all its pieces form a JSON object."""

    call: int
    arguments: str = ""
    name: str | None = None


class CallText(msgspec.Struct, frozen=True):
    """A complete call that is described to the client in words."""

    name: str
    arguments: dict[str, Any]


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token, as the bytes it stands for, and its natural log-probability."""

    piece: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token and the most probable alternatives, descending. `logprob` is None for the very first token."""

    piece: bytes
    logprob: float | None
    top: list[TopLogprob] = []


class SchemaNote(msgspec.Struct, frozen=True, array_like=True):
    """A part of a schema that was not enforced: the `keyword` at `path`, and why. `tool` is None for the
    schema of the answer itself."""

    tool: str | None
    path: str
    keyword: str
    note: str


class TokenChunk(msgspec.Struct, frozen=True, array_like=True):
    """New text of answer `index`. The last chunk of an answer has `finish` and `usage`.

    `finish` "error" comes with `error`, a (code, message) pair, and maybe with `retry_after_s`. `reasoning`
    is text of a reasoning section and precedes `text`; `calls` are pieces of tool calls and follow it.
    `stop` is the stop string that ended the answer. `told` is the call that `text` describes in words. The
    first chunk has `scored`, the tokens of a scored prompt. The last chunk has the `confidence` of a choice
    among intents, `notes` on schemas that were not enforced, and, if requested, `tokens`, the ids of prompt
    and answer.
    """

    index: int
    text: str
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: tuple[str, str] | None = None
    reasoning: str = ""
    calls: list[CallDelta] = []
    logprobs: list[TokenLogprob] = []
    stop: str | None = None
    confidence: Confidence | None = None
    scored: list[TokenLogprob] = []
    told: CallText | None = None
    notes: list[SchemaNote] = []
    tokens: list[int] = []
    retry_after_s: float | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is text in the middle of an answer, with its log-probabilities if any, and no more."""
        return self.finish is None and not (
            self.calls or self.scored or self.confidence or self.told or self.notes or self.tokens
        )

    def and_then(self, more: TokenChunk) -> TokenChunk:
        """One chunk of two of the same answer. This one is not the last."""
        return msgspec.structs.replace(
            more,
            text=self.text + more.text,
            reasoning=self.reasoning + more.reasoning,
            calls=self.calls + more.calls,
            logprobs=self.logprobs + more.logprobs,
            scored=self.scored + more.scored,
        )
