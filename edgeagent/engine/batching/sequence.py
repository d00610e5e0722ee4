"""One answer in the making: its tokens, how far they are in the KV cache, and how it ends."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from typing import Any

from edgeagent.engine.intents.intent_scoring import Choice
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.output.output_parser import Reader
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.output.text_stream import TextStream
from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.json_completion import Ending
from edgeagent.engine.structured.output_spec import Wanted
from edgeagent.types.answer import FinishReason, PromptFacts, SchemaNote, Usage
from edgeagent.types.generation import GenerateSpec


@dataclass(eq=False)
class Request:
    """What a client asked for. `is_cancelled` is set by the receiving thread and read by the engine, as
    is `is_forgotten`: nothing of it stays cached. With `is_counted` its prompts are made and counted, and
    that is all. One that `is_about_template` has none: it asks what the template can."""

    request_id: int
    spec: GenerateSpec
    arrived_s: float
    is_cancelled: bool = False
    is_forgotten: bool = False
    wanted: Wanted | None = None  # what its answers must look like, if it matters
    grammar: Grammar | None = None  # what is wanted, once it is compiled
    is_counted: bool = False
    is_about_template: bool = False
    facts: PromptFacts | None = None  # once its prompts are made


@dataclass(eq=False)
class Sequence:
    """Tokens and state of one answer. Engine thread only.

    `tokens` holds prompt and answer; the first `n_past` of them are in the KV cache under `seq_id`
    (None while waiting). It is in prefill until only its newest token is outside the cache.

    An answer with a `constraint` may have more than one token outside: those that its grammar forced.
    Its text is in `told` so far, of `n_told` tokens; those it must begin with are there from the start.
    What it accepted and there was no room for is `unsaid`.
    A constraint for `later` takes over when the `reader` says so, which takes the answer apart; with
    `must_form` the answer does not end before that. An answer that is a `choice` has neither.
    """

    request: Request
    index: int
    tokens: array[int]
    n_prompt: int
    max_new: int
    sampler: Sampler
    text: TextStream
    constraint: Constraint | None = None
    later: Constraint | None = None
    ending: Ending | None = None  # of an answer that is closed before its tokens run out
    unsaid: list[int] = field(default_factory=list)
    must_form: bool = False
    reader: Reader | None = None
    choice: Choice | None = None
    logprobs: Logprobs | None = None  # where they were asked for
    scores: PromptScores | None = None  # as well
    drawing: Generator[None, None, Any] | None = None  # a draw that takes more than one step
    n_told: int = 0
    told: list[str] = field(default_factory=list)
    seq_id: int | None = None
    n_past: int = 0
    n_cached: int | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    admission: int = 0
    finish: FinishReason | None = None
    error: tuple[str, str] | None = None

    @property
    def is_taken_apart(self) -> bool:
        """Its tokens are more than text, or not free."""
        parts = (self.constraint, self.reader, self.choice, self.logprobs)
        return any(part is not None for part in parts)

    @property
    def is_scored(self) -> bool:
        """Logits after its next tokens are wanted, not after the last one only."""
        return self.scores is not None and not self.scores.is_whole

    @property
    def is_stopped(self) -> bool:
        """A stop string has come."""
        return self.reader.is_stopped if self.reader is not None else self.text.is_stopped

    @property
    def stopped_by(self) -> str | None:
        """The stop string that has come."""
        return self.reader.stopped_by if self.reader is not None else self.text.stopped_by

    @property
    def notes(self) -> list[SchemaNote]:
        """What of its schemas the answer is not held to."""
        constraint = self.constraint or self.later
        return constraint.notes if constraint is not None else []

    @property
    def told_tokens(self) -> Collection[int]:
        """The tokens of prompt and answer, where the client carries them to its next request."""
        return self.tokens if self.request.spec.tells_tokens and self.choice is None else ()

    @property
    def n_pending(self) -> int:
        return len(self.tokens) - self.n_past

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def is_decoding(self) -> bool:
        """The prompt is in the cache and one generated token waits to follow it."""
        return self.n_pending == 1 and self.n_generated > 0

    @property
    def is_answering(self) -> bool:
        """Its client has begun to read: what is pending is an answer's, be it forced or to be computed
        again, and no prompt."""
        return self.first_token_s is not None

    def usage(self, now_s: float) -> Usage:
        arrived = self.request.arrived_s
        return Usage(
            n_prompt=self.n_prompt,
            # What an answer must begin with is cached as well, and is none of the prompt's.
            n_cached=min(self.n_cached or 0, self.n_prompt),
            n_generated=self.n_generated,
            queue_ms=1e3 * ((self.started_s or now_s) - arrived),
            ttft_ms=1e3 * ((self.first_token_s or now_s) - arrived),
            total_ms=1e3 * (now_s - arrived),
            n_reasoning=self.reader.n_reasoning if self.reader is not None else 0,
        )
