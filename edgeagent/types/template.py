"""What a chat template supports."""

from __future__ import annotations

from typing import Literal

import msgspec

# The origin of a chat template: the model file, an installed file, or edgeagent's own for the model family,
# which replaces a missing or broken one.
TemplateSource = Literal["model", "installed", "built-in"]


class TemplateFacts(msgspec.Struct, frozen=True, kw_only=True, tag="template_facts"):
    """What a chat template supports. Requests are adapted to what it does not support.

    `source` None: there is no usable template; `problem` is what is wrong with the model's own.
    `late_system`: a system message after others; `neighbours`: consecutive messages of one role;
    `prefill`: an answer can be continued; `thinking`: reasoning can be switched off; `reasoning`: there
    are markers for reasoning. `insert`: the vocabulary has marks for a gap to fill in.
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
        """Whether the model can answer chats, with its own template or a replacement."""
        return self.source is not None and (self.problem is None or self.source == "built-in")
