"""A request to generate text."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeagent.types.intents import IntentQuestion
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import ToolUse


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must look like. `text` is a JSON schema as JSON, a regular expression or a Lark
    grammar. A schema that is not `is_strict` is enforced as far as it can be."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str
    is_strict: bool = False


class GenerateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one engine: `n` answers to each prompt, numbered prompt by prompt.

    Answer i draws with `seed + i`. `max_tokens` None means the engine's default; `scope` names whose
    cached prefixes may be shared. With a `form` an answer ends when it is whole, `ignore_eos` or not.
    `logprobs` asks for the log-probability of each token and that many of the most probable beside it;
    with `scores_prompt` those of the prompts' own tokens come too, and `max_tokens` may be 0.
    Of waiting requests a higher `priority` is served first; it rises while a request waits.
    With `intent_question` an answer is one of the calls on offer, and nothing else counts.
    With `clamps`, a `max_tokens` for which the context has no room becomes what there is room for.
    With `tells_tokens` each answer ends with the ids of its prompt's tokens and its own.
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

    @property
    def n_answers(self) -> int:
        return self.n * len(self.prompts)
