"""Chunks of ours from the events of an upstream. Everything in them is checked: an upstream may be hostile.

Its text stays text, whatever tokens it names. Calls name offered tools only, and their arguments are JSON
objects. The end of each part waits for the counts, which come last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from edgeagent.routing.upstreams.faults import Fault
from edgeagent.routing.upstreams.token_counts import Count, TokenCounts, UsageReport
from edgeagent.types.answer import (
    CallDelta,
    FinishReason,
    TokenChunk,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from edgeagent.types.generation import GenerateSpec

DONE = b"[DONE]"
# llama-server begins the answer to several prompts with it.
NOTHING = b"null"
MAX_CALLS = 128
MAX_CHOICES = 1024  # of one event; more than any request asks for
_FINISHES: dict[str, FinishReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_CALLS)] = 0
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # newer vLLM
    tool_calls: Annotated[list[_Call], msgspec.Meta(max_length=MAX_CALLS)] | None = None


class _Top(msgspec.Struct):
    token: str
    logprob: float
    raw: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = msgspec.field(
        default=None, name="bytes"
    )

    @property
    def piece(self) -> bytes:
        return bytes(self.raw) if self.raw is not None else self.token.encode()


class _Logprob(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Choice(msgspec.Struct):
    index: Count = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Event(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(max_length=MAX_CHOICES)] = []
    usage: UsageReport | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


@dataclass
class _Part:
    """One answer: its pieces so far, and the arguments of its calls."""

    arguments: dict[int, list[str]] = field(default_factory=dict)
    finish: FinishReason | None = None


class AnswerReader:
    """Reads the events of one answer. `sent_s`: when the request was sent (monotonic). `n_prompt`: its
    tokens by our estimate, which count where the upstream does not tell them; 0 where nothing was sent."""

    def __init__(
        self, spec: GenerateSpec, sent_s: float, queue_ms: float = 0.0, n_prompt: int = 0
    ) -> None:
        self._names = {tool.name for tool in spec.tools.tools} if spec.tools is not None else set()
        self._wants_logprobs = spec.logprobs is not None
        self._parts = [_Part() for _ in range(spec.n_answers)]
        self._counts = TokenCounts(len(spec.prompts), spec.n, n_prompt)
        self._sent_s = sent_s
        self._queue_ms = queue_ms
        self._first_s: float | None = None
        self.is_over = False

    def read(self, data: bytes) -> list[TokenChunk]:
        """The chunks of one event. Raises: Fault."""
        if self.is_over or data == NOTHING:
            return []
        if data == DONE:
            return self._end()
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Fault("nonsense", "its answer is not in OpenAI's format") from None
        if event.error is not None:
            raise Fault("failed", "it has failed within its answer")
        chunks = [chunk for choice in event.choices if (chunk := self._chunk(choice)) is not None]
        if event.usage is not None:
            self._counts.report(event.usage)
        return chunks

    def _chunk(self, choice: _Choice) -> TokenChunk | None:
        if choice.index >= len(self._parts):
            raise Fault("nonsense", f"it has answered more often than {len(self._parts)} times")
        part = self._parts[choice.index]
        if part.finish is not None:
            return None
        delta = choice.delta or _Delta()
        calls = [self._call(part, call) for call in delta.tool_calls or ()]
        chunk = TokenChunk(
            choice.index,
            delta.content or choice.text or "",
            reasoning=delta.reasoning_content or delta.reasoning or "",
            calls=calls,
            logprobs=self._logprobs(choice),
        )
        if choice.finish_reason is not None:
            part.finish = self._finish(part, choice.finish_reason)
            self._counts.end(choice.index)
        if not (chunk.text or chunk.reasoning or chunk.calls or chunk.logprobs):
            return None
        n_chars = len(chunk.text) + len(chunk.reasoning)
        n_chars += sum(len(call.arguments) + len(call.name or "") for call in chunk.calls)
        self._counts.add(choice.index, n_chars, len(chunk.logprobs))
        self._first_s = self._first_s or time.monotonic()
        return chunk

    def _call(self, part: _Part, call: _Call) -> CallDelta:
        function = call.function or _Function()
        is_new = call.index not in part.arguments
        # Some engines repeat the name in each piece, or give it as an empty text.
        name = function.name if is_new else None
        if is_new and (name not in self._names or call.index != len(part.arguments)):
            raise Fault("miscalled", "it calls a tool that was not offered")
        pieces = part.arguments.setdefault(call.index, [])
        if function.arguments:
            pieces.append(function.arguments)
        return CallDelta(call.index, function.arguments or "", name)

    def _finish(self, part: _Part, reason: str) -> FinishReason:
        finish = _FINISHES.get(reason, "stop")
        if part.arguments and finish != "length":
            finish = "tool_calls"
            for pieces in part.arguments.values():
                if not _is_object("".join(pieces)):
                    raise Fault("miscalled", "the arguments of its call are no JSON object")
        return "stop" if finish == "tool_calls" and not part.arguments else finish

    def _logprobs(self, choice: _Choice) -> list[TokenLogprob]:
        if not self._wants_logprobs or choice.logprobs is None:
            return []
        return [
            TokenLogprob(one.piece, one.logprob, [TopLogprob(t.piece, t.logprob) for t in one.top_logprobs])
            for one in choice.logprobs.content or ()
        ]  # fmt: skip

    def _end(self) -> list[TokenChunk]:
        """The ends of all parts, with the counts."""
        if any(part.finish is None for part in self._parts):
            raise Fault("nonsense", "its answer ended without a finish_reason")
        self.is_over = True
        return self._ends()

    def finished_without_done(self) -> list[TokenChunk]:
        """The ends, where a stream has every finish_reason and just no [DONE]. Raises: Fault."""
        if self.is_over:
            return []
        if any(part.finish is None for part in self._parts):
            raise Fault("broken", "it has ended the connection within its answer")
        return self._end()

    def cancelled(self) -> list[TokenChunk]:
        """The ends of an answer that was given up."""
        if self.is_over:
            return []
        self.is_over = True
        for part in self._parts:
            part.finish = part.finish or "cancelled"
        return self._ends()

    def _ends(self) -> list[TokenChunk]:
        ends = []
        for index, part in enumerate(self._parts):
            assert part.finish is not None
            ends.append(TokenChunk(index, "", part.finish, self._usage_of(index)))
        return ends

    @property
    def has_shown(self) -> bool:
        """Whether a piece of the answer has come."""
        return self._first_s is not None

    @property
    def n_generated(self) -> int:
        """Tokens of all parts, by the counts of the upstream, else by an estimate."""
        return self._counts.n_generated

    def _usage_of(self, index: int) -> Usage:
        """The counts of one part."""
        now_s = time.monotonic()
        counts, first_s = self._counts.of(index), self._first_s or now_s
        return Usage(
            n_prompt=counts.n_prompt,
            n_cached=counts.n_cached,
            n_generated=counts.n_generated,
            queue_ms=self._queue_ms,
            ttft_ms=self._queue_ms + 1e3 * (first_s - self._sent_s),
            total_ms=self._queue_ms + 1e3 * (now_s - self._sent_s),
            n_reasoning=counts.n_reasoning,
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text or "{}"), dict)
    except (msgspec.DecodeError, RecursionError):
        return False
