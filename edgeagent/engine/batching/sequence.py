"""One answer in the making: how far its tokens are in the KV cache, and what decodes them."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass, field

from edgeagent.engine.batching.acceptance import Acceptance
from edgeagent.engine.batching.prompt_lookup import TokenPairs
from edgeagent.engine.output.decoder import Decoder
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.structured.constraint import Grammar
from edgeagent.engine.structured.output_spec import OutputSpec
from edgeagent.types.answer import PromptFacts, Usage
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.priority import rank


@dataclass(eq=False)
class Request:
    """What a client asked for. `is_cancelled` is set by the receiver thread and read by the engine, as
    is `is_forgotten`: nothing of the request stays cached. With `is_counted` its prompts are only made and
    counted; one that `is_about_head` asks for the tokens before the first turn. One that `is_about_template`
    has no prompts: it asks what the template can show."""

    request_id: int
    spec: GenerateSpec
    arrived_s: float
    is_cancelled: bool = False
    is_forgotten: bool = False
    output: OutputSpec | None = None  # what its answers must look like, if that is restricted
    grammar: Grammar | None = None  # the grammar of `output`, once it is compiled
    is_counted: bool = False
    is_about_head: bool = False
    is_about_template: bool = False
    facts: PromptFacts | None = None  # once its prompts are made
    # The class of its priority: a higher one takes slots from a lower one.
    rank: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = rank(self.spec.priority)

    @property
    def deadline_s(self) -> float | None:
        """When it must have begun; None: its queue time is bounded by the settings only."""
        return None if self.spec.timeout_s is None else self.arrived_s + self.spec.timeout_s

    def is_overdue(self, now: float) -> bool:
        """Whether its deadline has passed. Without one it never has."""
        return self.deadline_s is not None and now >= self.deadline_s


@dataclass(eq=False)
class Sequence:
    """The state of one answer in the engine. Engine thread only.

    `tokens` are the decoder's: prompt and answer. The first `n_past` of them are in the KV cache under
    `seq_id` (None while waiting). The sequence is in prefill until only its newest token is outside the
    cache; a structured answer may have several outside, which its grammar forced. `scores` are those of
    the prompt, shared by all answers to it, where the client wants them. One that `is_protected` was
    admitted before a request of a higher class, because it had waited for so long, and does not give way to
    one. `ran_s` is the end of its last step. `acceptance` says how often drafts of its tokens were right.
    `prediction` has tokens that the client expects, behind the last ones of the prompt; `n_predicted` and
    `n_mispredicted` of them were drafted rightly and wrongly. `pairs` are those of its tokens, as far as
    drafts were looked for.
    """

    request: Request
    index: int
    decoder: Decoder
    scores: PromptScores | None = None
    tokens: array[int] = field(init=False)
    n_prompt: int = field(init=False)
    seq_id: int | None = None
    n_past: int = 0
    n_cached: int | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    admission: int = 0
    is_protected: bool = False
    ran_s: float = 0.0
    pairs: TokenPairs = field(default_factory=TokenPairs)
    prediction: array[int] = field(default_factory=lambda: array("i"))
    n_predicted: int = 0
    n_mispredicted: int = 0
    acceptance: Acceptance = field(default_factory=Acceptance)

    def __post_init__(self) -> None:
        self.tokens = self.decoder.tokens
        self.n_prompt = self.decoder.n_prompt

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that it is computed with."""
        return self.request.spec.adapter

    @property
    def is_scored(self) -> bool:
        """Whether logits after each of its next tokens are needed, not after the last one only."""
        return self.scores is not None and not self.scores.is_whole

    @property
    def returned_tokens(self) -> Collection[int]:
        """The tokens of prompt and answer, where the client passes them on with its next request."""
        is_wanted = self.request.spec.tells_tokens and self.decoder.can_be_continued
        return self.tokens if is_wanted else ()

    @property
    def n_pending(self) -> int:
        return len(self.tokens) - self.n_past

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def is_decoding(self) -> bool:
        """Whether the prompt is in the cache and one generated token waits to follow it."""
        return self.n_pending == 1 and self.n_generated > 0

    @property
    def is_answering(self) -> bool:
        """Whether the first token was drawn, so that what is pending is an answer's: forced tokens, or
        tokens to be computed again."""
        return self.first_token_s is not None

    def usage(self, now_s: float) -> Usage:
        arrived = self.request.arrived_s
        return Usage(
            n_prompt=self.n_prompt,
            # Tokens that an answer must begin with are cached as well, but are not the prompt's.
            n_cached=min(self.n_cached or 0, self.n_prompt),
            n_generated=self.n_generated,
            queue_ms=1e3 * ((self.started_s or now_s) - arrived),
            ttft_ms=1e3 * ((self.first_token_s or now_s) - arrived),
            total_ms=1e3 * (now_s - arrived),
            n_reasoning=self.decoder.n_reasoning,
            n_predicted=self.n_predicted,
            n_mispredicted=self.n_mispredicted,
        )
