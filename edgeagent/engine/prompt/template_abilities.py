"""Finds out what a chat template can show of a dialogue, by rendering small dialogues with it.

Most templates omit silently what they do not know, and some refuse it. The test is therefore whether the
words of a probe are in the rendered text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeagent.engine.prompt.template_client import TemplateRefused
from edgeagent.engine.tool_syntax import PLAIN, chosen
from edgeagent.engine.tool_syntax.tool_syntax import Family
from edgeagent.errors import TemplateFailed
from edgeagent.types.template import TemplateFacts, TemplateSource
from edgeagent.types.tools import Tool

Message = dict[str, Any]
Render = Callable[[dict[str, Any]], str]

# Mistral's templates require an id of nine letters and digits.
_ID = "probe0001"
_CALL = {"id": _ID, "type": "function"}
_SYSTEM: Message = {"role": "system", "content": "probe_system"}
_ASK: Message = {"role": "user", "content": "probe_question"}
_ANSWER: Message = {"role": "assistant", "content": "probe_answer"}
_MORE: Message = {"role": "user", "content": "probe_more"}
_PROBE = Tool(
    name="probe_tool",
    description="probe_description",
    parameters={"type": "object", "properties": {"probe_key": {"type": "string"}}},
)


@dataclass(frozen=True)
class TemplateAbilities:
    """What a template renders of a dialogue.

    `family` is how it writes calls, and `wants_text` whether it wants their arguments as JSON text.
    `shows_call_text`: what is said beside a call. `has_lone_system`: a dialogue of nothing but a system
    message. `has_late_system`: another system message behind other messages. `has_neighbours`: two messages
    of one role in a row. `may_open`: an assistant's message before the first of a user. `can_continue`: a
    prompt ends with the opening of an answer. `has_thinking`: it can be told not to let the model reason.
    """

    family: Family = PLAIN
    has_system: bool = True
    has_tools: bool = False
    has_calls: bool = False
    wants_text: bool = False
    shows_call_text: bool = True
    has_lone_system: bool = True
    has_late_system: bool = True
    has_neighbours: bool = True
    may_open: bool = True
    can_continue: bool = True
    has_thinking: bool = False

    def facts(self, source: TemplateSource) -> TemplateFacts:
        return TemplateFacts(
            source=source,
            call_syntax=self.family.name,
            system=self.has_system,
            late_system=self.has_late_system,
            neighbours=self.has_neighbours,
            assistant_first=self.may_open,
            tools=self.has_tools,
            tool_results=self.has_calls,
            thinking=self.has_thinking,
            prefill=self.can_continue,
        )


def described(tool: Tool) -> dict[str, Any]:
    """A tool in the shape that templates know."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": parameters,
        },
    }


def complaint(render: Render) -> str | None:
    """Why a template cannot render a single question; None if it can."""
    try:
        text = render({"messages": [_ASK]})
    except TemplateRefused as exc:
        return exc.reason
    except TemplateFailed as exc:
        return exc.message
    return None if str(_ASK["content"]) in text else "it leaves out what a user says"


def probed(render: Render, template: str) -> TemplateAbilities:
    """The abilities of a template. Raises: Unavailable."""
    return _Probe(render, template).abilities()


class _Probe:
    def __init__(self, render: Render, template: str) -> None:
        self._render = render
        self._template = template

    def abilities(self) -> TemplateAbilities:
        has_tools = "probe_tool" in self._tried([_ASK], tools=[described(_PROBE)])
        past, wants_text = "", False
        for wants_text in (False, True):
            past = self._past(wants_text)
            # Arguments as Python writes them are no JSON: the template prints what it is given.
            if past and "'probe_key'" not in past:
                break
            past = ""
        family = chosen(past or self._template)
        if not has_tools or family is None:
            family, has_tools, past, wants_text = PLAIN, False, "", False
        begun = self._tried([_ASK])
        unbegun = self._tried([_ASK], add_generation_prompt=False)
        return TemplateAbilities(
            family=family,
            has_system=self._shows(_SYSTEM, _ASK),
            has_tools=has_tools,
            has_calls=bool(past),
            wants_text=wants_text,
            shows_call_text="probe_words" in past,
            has_lone_system=self._shows(_SYSTEM),
            has_late_system=self._shows(
                _SYSTEM, _ASK, _ANSWER, _SYSTEM | {"content": "probe_late"}, _MORE
            ),
            has_neighbours=self._shows(_ASK, _MORE)
            and self._shows(_ASK, _ANSWER, _ANSWER | {"content": "probe_second"}, _MORE),
            may_open=self._shows(_ANSWER, _ASK),
            can_continue=begun != unbegun and begun.startswith(unbegun),
            has_thinking=self._tried([_ASK], enable_thinking=True)
            != self._tried([_ASK], enable_thinking=False),
        )

    def _shows(self, *messages: Message) -> bool:
        rendered = self._tried([*messages])
        return all(message["content"] in rendered for message in messages)

    def _past(self, wants_text: bool) -> str:
        """A call and its result, as far as both are rendered."""
        return self._call(wants_text, "probe_words") or self._call(wants_text, "")

    def _call(self, wants_text: bool, words: str) -> str:
        arguments: Any = {"probe_key": "probe_value"}
        call = _CALL | {
            "function": {
                "name": "probe_tool",
                "arguments": json.dumps(arguments) if wants_text else arguments,
            }
        }
        rendered = self._tried([
            _ASK,
            {"role": "assistant", "content": words, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": _ID, "name": "probe_tool", "content": "probe_result"},
        ])  # fmt: skip
        is_all_there = all(
            part in rendered for part in ("probe_tool", "probe_value", "probe_result")
        )
        return rendered if is_all_there else ""

    def _tried(self, messages: list[Message], **variables: Any) -> str:
        try:
            return self._render({"messages": messages, **variables})
        except TemplateFailed:
            return ""
