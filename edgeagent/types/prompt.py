"""The prompt of a request."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import msgspec


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What to continue: exactly one of `messages` (rendered by the model's template), `text`, `tokens`.

    With a `suffix` the answer fills the gap between `text` and `suffix`, if the vocabulary supports this.
    A `text` besides `messages` is used by a model without a template. `prefill` is the beginning of the
    answer to `messages`; it is continued and not repeated. `variables` are further variables of the
    template. With `may_drop` the oldest turns are left out if not all fit. `before` are token ids in
    front of `messages` or `text`, from earlier turns. With `opens_answer` the template ends the prompt
    with the opening of an answer. Names of special tokens in client text are text, except in a `text`
    without `messages` with `parse_special`.
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

    @property
    def system_messages(self) -> list[dict[str, Any]]:
        """The messages before the first turn."""
        return list(
            takewhile(lambda m: m.get("role") in ("system", "developer"), self.messages or [])
        )
