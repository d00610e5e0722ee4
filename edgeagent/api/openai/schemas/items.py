"""Items of the stateful API: what a client sends, and their shape as they are kept and shown.

An item that is kept has an id of ours, whatever its sender called it: a client may send what it got
once more, and the same words twice are two items.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from edgeagent.errors import UnsupportedParameter
from edgeagent.store.items import Item
from edgeagent.types.ids import ITEM_PREFIXES, new_id

Body = dict[str, Any]
TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
CallId = Annotated[str, Field(min_length=1, max_length=256)]


def text_of(parts: Any) -> str:
    """The text of an item's content or output: a string, or parts that are joined."""
    if isinstance(parts, str):
        return parts
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts or [])


def _parts(content: Any) -> Any:
    """Parts of known shape. Raises: UnsupportedParameter for what no model here can read."""
    if not isinstance(content, list):
        return content
    return [_part(part) for part in content]


def _part(part: Any) -> dict[str, str]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ValueError("a content part is an object with a `type`")
    kind = part["type"]
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind not in TEXTS:
        raise UnsupportedParameter(
            f"A content part of type {kind[:40]!r} needs a model that can read it, and this one reads "
            "text only: send parts of type `input_text`.",
            param="input",
        )
    if not isinstance(part.get("text"), str):
        raise ValueError(f"a content part of type `{kind}` has a string `text`")
    return {"type": kind, "text": part["text"]}


def is_object(arguments: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _json_object(arguments: Any) -> Any:
    """ "" and null are a call without arguments, as some servers write it."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return "{}"
    if isinstance(arguments, str) and not is_object(arguments):
        raise ValueError("the arguments of a call are a JSON object in a string")
    return arguments


Text = Annotated[str | list[dict[str, str]], BeforeValidator(_parts)]


class _Item(BaseModel):
    # What else an item has been given (status, phase, ...) says nothing to a model.
    model_config = ConfigDict(extra="ignore", strict=True)


class MessageItem(_Item):
    """One turn. `content` may be text or a list of text parts."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text

    def body(self) -> Body:
        kind = "output_text" if self.role == "assistant" else "input_text"
        parts = (
            [{"type": kind, "text": self.content}]
            if isinstance(self.content, str)
            else self.content
        )
        return shown_message(self.role, [_as_kind(part, kind) for part in parts])


class FunctionCallItem(_Item):
    """A call that the model has made."""

    type: Literal["function_call"]
    call_id: CallId
    name: str = Field(min_length=1, max_length=128)
    namespace: str | None = Field(None, max_length=64)
    arguments: Annotated[str, BeforeValidator(_json_object)]

    def body(self) -> Body:
        return shown_call(self.call_id, self.name, self.arguments, namespace=self.namespace)


class FunctionCallOutputItem(_Item):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Text

    def body(self) -> Body:
        return shown_output("function_call_output", self.call_id, self.output)


class CustomToolCallItem(_Item):
    """A call of a custom tool, which takes a text."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: str = Field(min_length=1, max_length=128)
    namespace: str | None = Field(None, max_length=64)
    input: str

    def body(self) -> Body:
        return shown_custom_call(self.call_id, self.name, self.input, namespace=self.namespace)


class CustomToolCallOutputItem(_Item):
    """What a call of a custom tool gave."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: Text

    def body(self) -> Body:
        return shown_output("custom_tool_call_output", self.call_id, self.output)


class HostedItem(_Item):
    """What a tool of OpenAI's servers did: nothing that a model here could read. It is left out."""

    type: str = Field(max_length=64)


class ReasoningItem(_Item):
    """What the model thought before it answered. An `encrypted_content` from elsewhere cannot be read
    here and is left out."""

    type: Literal["reasoning"]
    summary: Annotated[list[dict[str, str]], BeforeValidator(_parts)] = Field(default_factory=list)
    content: Annotated[list[dict[str, str]] | None, BeforeValidator(_parts)] = None

    def body(self) -> Body:
        return shown_reasoning(text_of(self.content)) | {"summary": self.summary}


class ItemReference(_Item):
    """An item that is stored on this device, by its id."""

    type: Literal["item_reference"] | None = "item_reference"
    id: str = Field(min_length=1, max_length=100)


KINDS = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "custom_tool_call": CustomToolCallItem,
    "custom_tool_call_output": CustomToolCallOutputItem,
    "reasoning": ReasoningItem,
    "item_reference": ItemReference,
}


# Of tools that run elsewhere, and what is only told to OpenAI's models.
HOSTED_ITEMS = re.compile(
    r"(web_search|file_search|code_interpreter|image_generation|computer|local_shell|shell|apply_patch"
    r"|tool_search|mcp)(_\w+)?|compaction\w*|program\w*"
)


def _kind(value: Any) -> str | None:
    if isinstance(value, HostedItem):
        return "hosted"
    if isinstance(value, BaseModel):
        return str(value.type)  # type: ignore[attr-defined]
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind is None:
        return "message" if "role" in value else "item_reference" if "id" in value else None
    if isinstance(kind, str) and HOSTED_ITEMS.fullmatch(kind):
        return "hosted"
    if isinstance(kind, str) and kind not in KINDS:
        raise UnsupportedParameter(
            f"An input item of type {kind[:40]!r} is not known to this server: send items of the types "
            f"{', '.join(f'`{name}`' for name in KINDS)}.",
            param="input",
        )
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[CustomToolCallItem, Tag("custom_tool_call")]
    | Annotated[CustomToolCallOutputItem, Tag("custom_tool_call_output")]
    | Annotated[HostedItem, Tag("hosted")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(
        _kind,
        custom_error_type="item",
        custom_error_message="an item is an object with a `type`, or a message with `role` and `content`",
    ),
]


def _as_kind(part: dict[str, str], kind: str) -> Body:
    if part["type"] == "refusal":
        return dict(part)
    return output_text(part["text"]) if kind == "output_text" else {"type": kind, **_text(part)}


def _text(part: dict[str, str]) -> Body:
    return {"text": part["text"]}


# ---- as they are shown


def output_text(text: str, logprobs: list[Body] | None = None) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def shown_message(role: str, content: list[Body], status: str = "completed") -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["message"]),
        "type": "message",
        "role": role,
        "status": status,
        "content": content,
    }


def shown_call(
    call_id: str,
    name: str,
    arguments: str,
    status: str = "completed",
    namespace: str | None = None,
) -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["function_call"]),
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    } | ({"namespace": namespace} if namespace else {})


def shown_custom_call(
    call_id: str, name: str, text: str, status: str = "completed", namespace: str | None = None
) -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["custom_tool_call"]),
        "type": "custom_tool_call",
        "call_id": call_id,
        "name": name,
        "input": text,
        "status": status,
    } | ({"namespace": namespace} if namespace else {})


def shown_output(kind: str, call_id: str, output: Any) -> Body:
    """What a call gave, as text or parts of text."""
    if isinstance(output, list):
        output = [{"type": "input_text", "text": text_of([part])} for part in output]
    return {
        "id": new_id(ITEM_PREFIXES[kind]),
        "type": kind,
        "call_id": call_id,
        "output": output,
        "status": "completed",
    }


def shown_reasoning(text: str, status: str = "completed") -> Body:
    return {
        "id": new_id(ITEM_PREFIXES["reasoning"]),
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}] if text else [],
        "status": status,
    }


def kept(body: Body, *, is_input: bool) -> Item:
    """An item as the store has it."""
    plain = {
        "message": lambda: text_of(body["content"]),
        "function_call": lambda: f"{body['name']} {body['arguments']}",
        "function_call_output": lambda: text_of(body["output"]),
        "custom_tool_call": lambda: f"{body['name']} {body['input']}",
        "custom_tool_call_output": lambda: text_of(body["output"]),
        "reasoning": lambda: text_of(body["content"]) + text_of(body["summary"]),
    }[body["type"]]()
    return Item(
        id=body["id"],
        kind=body["type"],
        role=body.get("role"),
        body=body,
        plain=plain,
        is_input=is_input,
    )
