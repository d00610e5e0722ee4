"""What a model is asked to continue."""

from __future__ import annotations

from typing import Any

import msgspec


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What to continue: exactly one of `messages` (rendered by the model's template), `text`, `tokens`.

    With a `suffix` the answer is what stands between `text` and it, where the vocabulary can say so.
    A `text` beside `messages` is for a model without a template. `prefill` is how the answer to
    `messages` begins: it is continued, and not said again.
    `variables` are what else the template is told, beside messages and tools. Of one that `may_drop`, the
    oldest turns are left out where all do not fit.
    `before` are token ids that stand in front of `messages` or `text`: what was said and answered before.
    `opens_answer`: the template is to end the prompt with the opening of an answer.
    Names of special tokens in what a client sent are text; with `parse_special` those in a `text` without
    `messages` are the tokens.
    """

    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    tokens: list[int] | None = None
    suffix: str | None = None
    before: list[int] = msgspec.field(default_factory=list)
    prefill: str = ""
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    parse_special: bool = False
    may_drop: bool = False
    opens_answer: bool = True
