"""What comes back of a request to generate text: chunks, usage, log-probabilities, notes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgeagent.types.intents import Confidence

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts and times of one answer. `n_cached` of the `n_prompt` tokens came from the KV cache,
    `n_reasoning` of the `n_generated` were a reasoning section."""

    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float
    ttft_ms: float
    total_ms: float
    n_reasoning: int = 0


class PromptFacts(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a request before its first token: the tokens of its prompts, how many of them were
    found in the KV cache, and what had to give way so that they fit: `max_tokens` is the length of an
    answer where that is less than was asked for, `n_dropped` messages were left out."""

    n_prompt: int
    n_cached: int = 0
    max_tokens: int | None = None
    n_dropped: int = 0


class CallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of tool call number `call` of an answer. The first piece of each has its `name`; all
    `arguments` of one call together are a JSON object."""

    call: int
    arguments: str = ""
    name: str | None = None


class CallText(msgspec.Struct, frozen=True):
    """A whole call, for a client that is told of it in words."""

    name: str
    arguments: dict[str, Any]


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token, as the bytes it stands for, and its natural log-probability."""

    piece: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token, and the most probable ones in its place, falling. `logprob` None: it is the first of all."""

    piece: bytes
    logprob: float | None
    top: list[TopLogprob] = []


class SchemaNote(msgspec.Struct, frozen=True, array_like=True):
    """What of a schema an answer was not held to: the `keyword` at `path`, and why. `tool` is None for the
    schema of the answer itself."""

    tool: str | None
    path: str
    keyword: str
    note: str


class TokenChunk(msgspec.Struct, frozen=True, array_like=True):
    """New text of answer `index`. The last chunk of an answer has `finish` and `usage`.

    `finish` "error" comes with `error`, a (code, message) pair. `reasoning` is text of a reasoning
    section, which comes before `text`; `calls` are pieces of tool calls, which come after it. `stop` is
    the stop string that ended the answer. The last chunk of a choice among intents has its `confidence`.
    The first one of an answer whose prompt is scored has the prompt's tokens, `scored`. `told` is the call
    that `text` tells in words. The last one has `notes` of what its schemas ask for and it was not held to,
    and `tokens`, those of prompt and answer, where the request wants them.
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
