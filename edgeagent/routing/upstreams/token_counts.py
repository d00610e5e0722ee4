"""Tokens of an answer of an upstream, by its own counts or by an estimate. Pure.

Engines report their counts in different places: once at the end for everything (OpenAI, vLLM), with each
chunk so far, or at the end of each of several answers for that one alone (llama-server).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

from edgeagent.routing.upstreams.outgoing_request import CHARS_PER_TOKEN

# No request has more tokens; a count charges the limits of a key.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
# A piece that is not longer may be one token; longer ones are several tokens that were sent together.
ONE_TOKEN_CHARS = 16


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class UsageReport(msgspec.Struct):
    """The `usage` of an event."""

    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    @property
    def n_cached(self) -> int:
        details = self.prompt_tokens_details
        return (details.cached_tokens if details is not None else None) or 0

    @property
    def n_reasoning(self) -> int:
        details = self.completion_tokens_details
        return (details.reasoning_tokens if details is not None else None) or 0


class PartCounts(NamedTuple):
    """The tokens of one answer."""

    n_prompt: int
    n_cached: int
    n_generated: int
    n_reasoning: int


@dataclass
class _Part:
    n_estimated: int = 0
    has_ended: bool = False
    report: UsageReport | None = None  # for this part alone


class TokenCounts:
    """Counts the tokens of `n_prompts` prompts with `n_each` answers each, which are numbered in turn.

    `n_prompt` is an estimate of the prompts' tokens, used where the upstream does not count them.
    """

    def __init__(self, n_prompts: int, n_each: int, n_prompt: int) -> None:
        self._parts = [_Part() for _ in range(n_prompts * n_each)]
        self._n_prompts, self._n_each = n_prompts, n_each
        self._n_prompt = n_prompt
        self._total: UsageReport | None = None  # for all parts
        self._ended: list[_Part] = []  # since the last report

    def add(self, index: int, n_chars: int, n_tokens: int = 0) -> None:
        """A piece of an answer: its length, and its tokens where it names each of them."""
        estimate = 1 if n_chars <= ONE_TOKEN_CHARS else -(-n_chars // CHARS_PER_TOKEN)
        self._parts[index].n_estimated += n_tokens or estimate

    def end(self, index: int) -> None:
        part = self._parts[index]
        if not part.has_ended:
            part.has_ended = True
            self._ended.append(part)

    def report(self, usage: UsageReport) -> None:
        """A report belongs to one answer if exactly that one has ended since the report before."""
        if len(self._ended) == 1:
            self._ended[0].report, self._total = usage, None
        else:
            self._total = usage
        self._ended.clear()

    @property
    def n_generated(self) -> int:
        """Tokens of all answers."""
        total = self._total
        if total is not None:
            return total.completion_tokens or sum(part.n_estimated for part in self._parts)
        return sum(map(_generated, self._parts))

    def of(self, index: int) -> PartCounts:
        """The counts of one answer. A report for all of them is divided by their estimates, and the tokens
        of the prompts evenly among the prompts."""
        n_prompt, n_cached = self._prompt_counts()
        part, at = self._parts[index], index // self._n_each
        report = part.report or UsageReport()
        n_generated = _generated(part)
        if (total := self._total) is not None:
            report, weights = total, [one.n_estimated for one in self._parts]
            before, until, all_of = sum(weights[:index]), sum(weights[: index + 1]), sum(weights)
            n_generated = self._divided(self.n_generated, before, until, max(1, all_of))
        own = self._divided(n_prompt, at, at + 1, self._n_prompts)
        return PartCounts(
            own,
            min(self._divided(n_cached, at, at + 1, self._n_prompts), own),
            n_generated,
            min(report.n_reasoning, n_generated),
        )

    def _prompt_counts(self) -> tuple[int, int]:
        """Tokens of all prompts, and those out of the upstream's cache. Each answer to the same prompt
        reports them anew."""
        if self._total is not None:
            return self._total.prompt_tokens or self._n_prompt, self._total.n_cached
        n_prompt = n_cached = 0
        for first in range(0, len(self._parts), self._n_each):
            parts = self._parts[first : first + self._n_each]
            reports = [part.report for part in parts if part.report is not None]
            n_prompt += max((one.prompt_tokens for one in reports), default=0)
            n_cached += min((one.n_cached for one in reports), default=0)
        return n_prompt or self._n_prompt, n_cached

    @staticmethod
    def _divided(n: int, start: int, end: int, of: int) -> int:
        """The share of n from start to end of `of`: shares of neighbours add up to n."""
        return n * end // of - n * start // of


def _generated(part: _Part) -> int:
    counted = part.report.completion_tokens if part.report is not None else None
    return counted or part.n_estimated
