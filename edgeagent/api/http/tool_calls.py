"""What all dialects share about tools: the tools that an answer may call, and its calls."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edgeagent.errors import Forbidden, InvalidParameter
from edgeagent.routing.intents import UnsuitedRequest
from edgeagent.types.answer import CallDelta
from edgeagent.types.caller import Caller
from edgeagent.types.tools import Tool, ToolUse

MAX_TOOLS = 128
NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # as OpenAI has it
# Names in any dialect: Ollama's clients have names like `light.turn_on` and `mcp/server:tool`.
ANY_NAME = r"^[a-zA-Z0-9_./:@+-]{1,128}$"
PARAM = "tools"


def tool_use(
    tools: list[Tool],
    caller: Caller,
    *,
    choice: Literal["none", "auto", "required"] = "auto",
    name: str | None = None,
    only: list[str] | None = None,
    is_parallel: bool = True,
    has_own: bool = False,
) -> ToolUse | None:
    """The tools that an answer may call; None where it may call none.

    With `name`, that tool must be called; with `only`, no others may be. A model that `has_own` tools
    offers those where the request has none.

    Raises: InvalidParameter for invalid tools or an invalid choice; Forbidden for a tool that the caller's
    key does not list.
    """
    tools = _checked(tools)
    for tool in tools:
        if caller.tools is not None and tool.name not in caller.tools:
            raise Forbidden(
                f"This key may not use the tool {tool.name!r}: leave it out, or use a key that lists it.",
                param=PARAM,
            )
    if choice == "none" and name is None and has_own:
        raise UnsuitedRequest(
            "`tool_choice` none asks for text, and this model answers with calls of its own tools: leave it "
            "out, or ask another model.",
            param="tool_choice",
        )
    if not tools and has_own and only is None:
        is_required = choice == "required" or name is not None
        return ToolUse(tools=[], choice="required", name=name) if is_required else None
    if not tools:
        if choice == "required" or name is not None:
            raise InvalidParameter(
                "`tool_choice` asks for a call, and there are no `tools`: add them.",
                param="tool_choice",
            )
        return None
    for wanted in [name] if name is not None else only or ():
        if all(tool.name != wanted for tool in tools):
            raise InvalidParameter(
                f"`tool_choice` names the tool {wanted[:80]!r}, which is not among `tools`: name one of "
                "them.",
                param="tool_choice",
            )
    if choice == "none" and name is None:
        return None
    if only is not None:
        tools = [tool for tool in tools if tool.name in only]
    return ToolUse(
        tools=tools,
        choice="required" if choice == "required" or name is not None else "auto",
        name=name,
        is_parallel=is_parallel,
    )


def _checked(tools: list[Tool]) -> list[Tool]:
    """The tools with names that are sound and different, and numbers that a frame can carry."""
    if len(tools) > MAX_TOOLS:
        raise InvalidParameter(
            f"There are {len(tools)} tools, the bound is {MAX_TOOLS}: send fewer.", param=PARAM
        )
    seen: set[str] = set()
    for tool in tools:
        if not re.fullmatch(ANY_NAME, tool.name):
            raise InvalidParameter(
                f"The tool's name {tool.name[:80]!r} is not 1 to 128 letters, digits and characters of "
                "`_-./:@+`: correct it.",
                param=PARAM,
            )
        if tool.name in seen:
            raise InvalidParameter(
                f"Two tools have the name {tool.name!r}: give each a name of its own.", param=PARAM
            )
        seen.add(tool.name)
    return [_encodable(tool) for tool in tools]


def _encodable(tool: Tool) -> Tool:
    """The tool as it is, or with integers of more than 64 bits as floats where it is not strict."""
    with suppress(OverflowError, RecursionError):
        msgspec.msgpack.encode(tool)
        return tool
    if not tool.is_strict:
        with suppress(OverflowError, RecursionError):
            rounded = msgspec.structs.replace(tool, parameters=_rounded(tool.parameters))
            msgspec.msgpack.encode(rounded)
            return rounded
    raise InvalidParameter(
        f"The parameters of tool {tool.name!r} hold a number of more than 64 bits or are nested too "
        "deeply: send a simpler schema.",
        param=PARAM,
    )


def _is_long(number: int) -> bool:
    return not -(1 << 63) <= number < 1 << 64


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(value) if isinstance(value, int) and _is_long(value) else value


def as_arguments(value: Any) -> Any:
    """The arguments of a past call as an object: "" and null become an empty object, JSON text is parsed.
    Other values are left to the field's type to refuse."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return value
    return value


def new_call_id() -> str:
    """An id for a call, which its result refers to."""
    return f"call_{secrets.token_hex(12)}"


@dataclass
class PartialCall:
    """One call of an answer so far. `arguments` is JSON text, incomplete where the answer was cut off."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


class CallCollector:
    """Collects the calls of all answers of a request from their pieces, and assigns their ids."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], PartialCall] = {}
        self._ids: dict[tuple[int, int], str] = {}

    def id_of(self, index: int, call: int) -> str:
        """The id of call number `call` of answer `index`."""
        return self._ids.setdefault((index, call), new_call_id())

    def add(self, index: int, deltas: Iterable[CallDelta]) -> None:
        """Add pieces of answer `index`, in order."""
        for delta in deltas:
            key = (index, delta.call)
            if delta.name is not None:
                self._calls[key] = PartialCall(self.id_of(*key), delta.name)
            if delta.arguments:
                self._calls[key].pieces.append(delta.arguments)

    def of(self, index: int) -> list[PartialCall]:
        """The calls of answer `index`, in order."""
        return [self._calls[key] for key in sorted(self._calls) if key[0] == index]


def merged(deltas: list[CallDelta]) -> list[CallDelta]:
    """The pieces with neighbours of the same call joined."""
    out: list[CallDelta] = []
    for delta in deltas:
        if out and delta.name is None and out[-1].call == delta.call:
            last = out[-1]
            out[-1] = CallDelta(last.call, last.arguments + delta.arguments, last.name)
        else:
            out.append(delta)
    return out
