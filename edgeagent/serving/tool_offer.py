"""The tools that a request offers a model, and the way back from its calls to the tools of the client.

A model sees functions only. A custom tool becomes a function with a single text argument; the tools of a
namespace get its name in front of theirs; tools that run on OpenAI's servers are left out, which a note
says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.serving.knowledge.file_search_tool import FileSearch
from edgeagent.types.tools import Tool

INPUT = "input"
CUSTOM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
    "additionalProperties": False,
}
# Tools that run on OpenAI's servers or are known to its models only. Versions append a date to the name.
HOSTED = re.compile(
    r"(web_search|code_interpreter|image_generation|mcp|computer|local_shell|shell"
    r"|apply_patch|tool_search|programmatic_tool_calling)(_\w+)?"
)


class ToolName(NamedTuple):
    """The client's name for a tool, with its namespace if it has one."""

    namespace: str | None
    name: str


def full_name(namespace: str | None, name: str) -> str:
    """The model's name for a tool of a namespace."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


@dataclass
class ToolOffer:
    """The tools of one request as the model sees them.

    `file_search` is done before the answer, without a call of the model. `customs` names the custom tools;
    `places` maps names of the model to those of the client for tools of namespaces; `notes` say what was
    left out.
    """

    tools: list[Tool] = field(default_factory=list)
    customs: set[str] = field(default_factory=set)
    places: dict[str, ToolName] = field(default_factory=dict)
    hosted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    file_search: FileSearch | None = None

    def add(self, tool: Tool, namespace: str | None = None) -> None:
        """Add a function."""
        name = full_name(namespace, tool.name)
        if namespace:
            self.places[name] = ToolName(namespace, tool.name)
        self.tools.append(msgspec.structs.replace(tool, name=name))

    def add_custom(
        self, name: str, description: str | None, format_: Mapping[str, Any] | None,
        namespace: str | None = None,
    ) -> None:  # fmt: skip
        """Add a tool whose input is text. Its grammar is not enforced."""
        tool = Tool(name=name, description=description, parameters=CUSTOM_SCHEMA)
        self.add(tool, namespace)
        self.customs.add(full_name(namespace, name))
        if format_ is not None and format_.get("type") not in (None, "text"):
            self.notes.append(f"tools: the grammar of the custom tool `{name}` is not enforced.")

    def leave_out(self, kind: str) -> None:
        """Note a tool that runs elsewhere."""
        self.hosted.append(kind)
        self.notes.append(
            f"tools: `{kind[:60]}` does not run on this device and was left out; offer it as a function "
            "and run it where you are."
        )

    def place(self, name: str) -> ToolName:
        """The client's name for the tool that the model calls `name`."""
        return self.places.get(name, ToolName(None, name))

    def wanted(self, name: str, namespace: str | None = None) -> str:
        """The model's name for a tool that the client names; the namespace may be missing where only one
        tool has the name."""
        full = full_name(namespace, name)
        if namespace or any(tool.name == full for tool in self.tools):
            return full
        found = [own for own, place in self.places.items() if place.name == name]
        return found[0] if len(found) == 1 else full

    def check_choice(self, *, is_required: bool) -> None:
        """Raises: InvalidParameter where a call is required and every offered tool runs elsewhere."""
        if is_required and self.hosted and not self.tools:
            raise InvalidParameter(
                f"`tool_choice` asks for a call, and the only tools are of types that do not run on this "
                f"device ({', '.join(self.hosted)[:80]}): offer a function, or leave `tool_choice` out.",
                param="tool_choice",
            )


def require_hosted(kind: str) -> None:
    """Raises: UnsupportedParameter for an unknown type of tool."""
    if HOSTED.fullmatch(kind) is None:
        raise UnsupportedParameter(
            f"A tool of type {kind[:40]!r} is not known here: offer it as a tool of type `function` or "
            "`custom`, and run it where you are.",
            param="tools",
        )


def refuse_hosted_choice(kind: str) -> UnsupportedParameter:
    """The error for a choice that requires a tool which does not run here."""
    return UnsupportedParameter(
        f"`tool_choice` requires a tool of type {kind[:40]!r}, which does not run on this device: choose a "
        "function or a custom tool, or leave it out.",
        param="tool_choice",
    )


def arguments_of(text: str) -> str:
    """The arguments by which a model calls a custom tool with this text."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


# One character of a JSON text: as it is, escaped, or as one or two \uXXXX; never half of one.
_CHARACTERS = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*"
)
_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')


class CustomInput:
    """Extracts the text of a custom tool from the arguments of its call while they are generated."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._held = ""
        self._is_open = False
        self._told: list[str] = []

    def feed(self, piece: str) -> str:
        """Add a piece of the arguments. Gives the new part of the text."""
        self._written.append(piece)
        self._held += piece
        if not self._is_open:
            opening = _OPENING.match(self._held)
            if opening is None:
                return ""
            self._held, self._is_open = self._held[opening.end() :], True
        found = _CHARACTERS.match(self._held)
        assert found is not None, "it matches nothing as well"
        self._held = self._held[found.end() :]
        told = _text(found[0])
        self._told.append(told)
        return told

    @property
    def told(self) -> str:
        return "".join(self._told)

    def finish(self) -> str:
        """The rest of the text at the end: empty, unless the arguments have an unusual form."""
        try:
            value = json.loads("".join(self._written))[INPUT]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        whole = _sound(value) if isinstance(value, str) else ""
        told = self.told
        rest = whole[len(told) :] if whole.startswith(told) else ""
        self._told.append(rest)
        return rest


def _text(characters: str) -> str:
    return _sound(json.loads(f'"{characters}"', strict=False))


def _sound(text: str) -> str:
    """The text without unpaired surrogates, which cannot be encoded."""
    return text.encode("utf-8", "replace").decode()
