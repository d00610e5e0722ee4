"""The content of Anthropic's messages, and its conversion to messages for a chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import IgnoredField
from edgeagent.api.http.tool_calls import as_arguments
from edgeagent.errors import InvalidParameter, UnsupportedParameter

MAX_BLOCKS = 4096
BETWEEN = "\n\n"  # texts of one turn
Template = dict[str, Any]


class Block(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    cache_control: Annotated[dict[str, Any] | None, IgnoredField("prefixes are found")] = None


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Annotated[list[Any] | None, IgnoredField()] = None


class ThinkingBlock(Block):
    """The reasoning of an earlier answer; the template may show it again or leave it out."""

    type: Literal["thinking"]
    thinking: str
    signature: Annotated[str | None, IgnoredField()] = None


class RedactedThinkingBlock(Block):
    type: Literal["redacted_thinking"]
    data: Annotated[str, IgnoredField("nobody here can read it")]


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    input: Annotated[dict[str, Any], BeforeValidator(as_arguments)]
    caller: Annotated[dict[str, Any] | None, IgnoredField()] = None
    toolset_name: Annotated[str | None, IgnoredField()] = None

    def written(self) -> str:
        """The arguments as JSON text. Raises: InvalidParameter."""
        try:
            return json.dumps(self.input, ensure_ascii=False)
        except (RecursionError, ValueError):
            raise InvalidParameter(
                "The input of a tool is nested too deeply or has a number that is too long: send a "
                "simpler one.",
                param="messages",
            ) from None


class ServiceBlock(BodyModel):
    """A call or result of a tool that runs on servers: it is left out."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal[
        "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
        "code_execution_tool_result", "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result", "tool_search_tool_result", "mcp_tool_use",
        "mcp_tool_result", "container_upload",
    ]  # fmt: skip


_MISSING = {
    "image": "a model for images; describe the image as text",
    "document": "a document reader; send its text in a block of type `text`",
    "search_result": "citations; send its text in a block of type `text`",
}


def _readable(value: Any) -> Any:
    """One block, or why it cannot be read here."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise ValueError("a content block is an object with a `type`")
    if kind not in _KNOWN:
        missing = _MISSING.get(kind, "a tool of Anthropic's servers; leave it out")
        raise UnsupportedParameter(
            f"A content block of type {kind[:40]!r} needs something that is not here: {missing}.",
            param="messages",
        )
    return value


def _turn_block(value: Any) -> Any:
    """One block of a turn. Newer tools of servers than are known here are blocks of them too."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind in _KNOWN:
        return _readable(value)
    if kind in _OF_SERVICES:
        return value
    if kind.endswith(("_tool_use", "_tool_result")):
        return {"type": "server_tool_use"}
    if kind == "compaction":  # a summary that replaces earlier turns
        return {"type": "text", "text": value.get("content") or ""}
    return _readable(value)


def _as_texts(value: Any) -> Any:
    """Plain text as a list of one block."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _as_blocks(value: Any) -> Any:
    """Plain text as a list of one block."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    return [_turn_block(item) for item in value] if isinstance(value, list) else value


Texts = Annotated[
    list[TextBlock], Field(max_length=MAX_BLOCKS, description="text, or a list of text blocks"),
    BeforeValidator(_as_texts, json_schema_input_type=str | list[TextBlock]),
]  # fmt: skip


class ToolResultBlock(Block):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1, max_length=256)
    content: Texts | None = None
    is_error: bool | None = None


AnyBlock = Annotated[
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ServiceBlock,
    Field(discriminator="type"),
]
Blocks = Annotated[
    list[AnyBlock], Field(max_length=MAX_BLOCKS, description="text, or a list of blocks"),
    BeforeValidator(_as_blocks, json_schema_input_type=str | list[AnyBlock]),
]  # fmt: skip
_KNOWN = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
_OF_SERVICES: tuple[str, ...] = get_args(ServiceBlock.model_fields["type"].annotation)


# Claude Code begins its system prompt with a line that differs in each session, and with that line no
# cached prefix would ever match.
_BILLING = re.compile(r"\A\s*x-anthropic-billing-header:[^\n]*(\n+|\Z)", re.IGNORECASE)


def without_billing(system: list[TextBlock]) -> list[TextBlock]:
    """A system prompt without the line that only Anthropic's servers read."""
    if not system or _BILLING.match(system[0].text) is None:
        return system
    rest = _BILLING.sub("", system[0].text)
    first = [system[0].model_copy(update={"text": rest})] if rest.strip() else []
    return [*first, *system[1:]]


def left_out(blocks: Iterable[Any]) -> list[str]:
    """Notes about blocks that no model here can read."""
    kinds = dict.fromkeys(block.type for block in blocks if isinstance(block, ServiceBlock))
    if not kinds:
        return []
    named = ", ".join(f"`{kind}`" for kind in kinds)
    return [f"messages: blocks of tools that do not run on this device were left out: {named}."]


def turns(system: list[TextBlock], messages: Iterable[tuple[str, list[Any]]]) -> list[Template]:
    """Messages for a chat template, from (role, blocks). Consecutive messages of one role become one turn.

    Raises: InvalidParameter for a block that its role cannot have, and for a result without its call.
    """
    out: list[Template] = []
    called: dict[str, str] = {}
    if system:
        out.append({"role": "system", "content": _joined(system)})
    for index, (role, blocks) in enumerate(messages):
        where = f"messages.{index}.content"
        if blocks and all(isinstance(block, ServiceBlock) for block in blocks):
            continue
        if role == "assistant":
            _append(out, _assistant(blocks, called, where))
        else:
            _append_asked(out, role, blocks, called, where)
    for (
        turn
    ) in out:  # joined once at the end, so that thousands of messages are not copied repeatedly
        if isinstance(turn["content"], list):
            turn["content"] = BETWEEN.join(filter(None, turn["content"]))
    return out


def _assistant(blocks: list[Any], called: dict[str, str], where: str) -> Template:
    message: Template = {
        "role": "assistant",
        "content": _joined([block for block in blocks if isinstance(block, TextBlock)]),
    }
    thought = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    if thought:
        message["reasoning_content"] = BETWEEN.join(thought)
    calls = []
    for block in blocks:
        if isinstance(block, ToolResultBlock):
            raise _misplaced(block.type, "assistant", where)
        if isinstance(block, ToolUseBlock):
            called[block.id] = block.name
            function = {"name": block.name, "arguments": block.written()}
            calls.append({"id": block.id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    return message


def _append_asked(
    out: list[Template], role: str, blocks: list[Any], called: dict[str, str], where: str
) -> None:
    """What a user says, and what came of calls, in its order."""
    for block in blocks:
        if isinstance(block, TextBlock):
            _append(out, {"role": role, "content": block.text})
        elif isinstance(block, ToolResultBlock) and role == "user":
            name = called.get(block.tool_use_id)
            if name is None:
                raise InvalidParameter(
                    f"`{where}` has the result of {block.tool_use_id[:80]!r}, which no `tool_use` block "
                    "before it has as its id: send that message of the assistant first.",
                    param=where,
                )
            text = _joined(block.content or [])
            said = f"Error: {text}" if block.is_error else text
            out.append(
                {"role": "tool", "tool_call_id": block.tool_use_id, "name": name, "content": said}
            )
        elif not isinstance(block, ServiceBlock):
            raise _misplaced(block.type, role, where)


def _append(out: list[Template], message: Template) -> None:
    """Another turn, or more of the last one; its content is a list of texts for now."""
    last = out[-1] if out else None
    if last is None or last["role"] != message["role"] or "tool_calls" in last:
        out.append(message | {"content": [message["content"]]})
        return
    if isinstance(last["content"], str):  # a message that is not joined yet
        last["content"] = [last["content"]]
    last["content"].append(message["content"])
    for key in ("reasoning_content", "tool_calls"):
        if key in message:
            last[key] = message[key]


def _misplaced(kind: str, role: str, where: str) -> InvalidParameter:
    return InvalidParameter(
        f"`{where}` has a block of type `{kind}`, which a message of the role `{role}` cannot have: send "
        "it with the other role.",
        param=where,
    )


def _joined(blocks: list[TextBlock]) -> str:
    return BETWEEN.join(block.text for block in blocks)
