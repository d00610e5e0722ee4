"""A request to generate text."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeagent.types.intents import IntentQuestion
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import ToolUse


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The required form of an answer. `text` is a JSON schema, a regular expression or a Lark grammar. A
    schema without `is_strict` is enforced as far as possible."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str
    is_strict: bool = False


class GenerateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one engine: `n` answers to each prompt, numbered prompt by prompt.

    Answer i uses the seed `seed + i`. `max_tokens` None means the engine's default. Cached prefixes are
    shared within a `scope`. An answer with a `form` ends when it is complete, even with `ignore_eos`.
    `logprobs` is the number of alternatives for each token; with `scores_prompt` the tokens of the
    prompts are scored, too, and `max_tokens` may be 0. A waiting request with a higher `priority` is
    served first; the priority rises while it waits. With `intent_question` the answer is one of its
    calls, and all other fields are ignored. With `clamps` a `max_tokens` that does not fit into the
    context is lowered. With `tells_tokens` the last chunk of an answer has the ids of the prompt's and
    the answer's tokens. A request that has not begun after `timeout_s` fails with deadline_exceeded.
    `adapter` is the id of one of the model's LoRA adapters. One that `is_retry` was refused before and
    comes back when it was told. `prediction` is text that the answer probably repeats; only its speed
    depends on that.
    """

    prompts: list[Prompt]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    clamps: bool = False
    stop: list[str] = msgspec.field(default_factory=list)
    n: int = 1
    scope: str = ""
    ignore_eos: bool = False
    form: Form | None = None
    tools: ToolUse | None = None
    logprobs: int | None = None
    scores_prompt: bool = False
    priority: int = 0
    intent_question: IntentQuestion | None = None
    tells_tokens: bool = False
    timeout_s: float | None = None
    is_retry: bool = False
    prediction: str = ""
    adapter: str | None = None

    @property
    def n_answers(self) -> int:
        return self.n * len(self.prompts)
