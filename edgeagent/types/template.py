"""What a chat template can show of a conversation."""

from __future__ import annotations

from typing import Literal

import msgspec

# Whose chat template it is: the model's own, one that was installed with it, or ours for its family, in
# place of one that is missing or broken.
TemplateSource = Literal["model", "installed", "built-in"]


class TemplateFacts(msgspec.Struct, frozen=True, kw_only=True, tag="template_facts"):
    """What a chat template can show of a dialogue. Requests are adapted to what it cannot.

    `source` None: there is none, and `problem` says what is wrong with the model's own. `late_system`: a
    system message behind others; `neighbours`: two messages of one role in a row; `prefill`: an answer
    can be continued; `thinking`: the model can be told not to reason; `reasoning`: it has markers for it.
    `insert` tells of the vocabulary: it marks a gap to be filled in.
    """

    source: TemplateSource | None = None
    call_syntax: str = "plain"
    system: bool = False
    late_system: bool = False
    neighbours: bool = False
    assistant_first: bool = False
    tools: bool = False
    tool_results: bool = False
    thinking: bool = False
    prefill: bool = False
    reasoning: bool = False
    insert: bool = False
    problem: str | None = None

    @property
    def can_chat(self) -> bool:
        """Whether chats are answered at all: by the model's own template or by one in its place."""
        return self.source is not None and (self.problem is None or self.source == "built-in")
