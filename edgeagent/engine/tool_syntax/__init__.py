"""The ways in which models write tool calls, one file each. `chosen` names the one of a template."""

from edgeagent.engine.tool_syntax.gemma import Gemma, Gemma4
from edgeagent.engine.tool_syntax.hermes import Hermes
from edgeagent.engine.tool_syntax.llama3 import Llama3
from edgeagent.engine.tool_syntax.mistral import Mistral, MistralArgs
from edgeagent.engine.tool_syntax.plain import Plain
from edgeagent.engine.tool_syntax.tool_syntax import Family

PLAIN = Plain()
# The most specific syntax first; the plain one is the last.
FAMILIES: tuple[Family, ...] = (
    Gemma(), Gemma4(), MistralArgs(), Mistral(), Hermes(), Llama3(), PLAIN,
)  # fmt: skip


def chosen(sample: str) -> Family | None:
    """The family that writes calls so. `sample` is a past call as a template renders it, or where it
    renders none, the template."""
    return next((family for family in FAMILIES if family.writes(sample)), None)
