"""Items of the stateful API as clients send them: their schemas, and the bodies made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from edgeagent.api.http.body_base import BodyModel
from edgeagent.errors import UnsupportedParameter
from edgeagent.serving.items import (
    REFERENCE,
    Body,
    is_object,
    output_text,
    shown_call,
    shown_message,
    shown_output,
    shown_reasoning,
    text_of,
)

TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
CallId = Annotated[str, Field(min_length=1, max_length=256)]


def _parts(content: Any) -> Any:
    """Parts of a known type. Raises: UnsupportedParameter for types that no model here can read."""
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


def _json_object(arguments: Any) -> Any:
    """ "" and null are calls without arguments, as some servers write them."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return "{}"
    if isinstance(arguments, str) and not is_object(arguments):
        raise ValueError("the arguments of a call are a JSON object in a string")
    return arguments


Text = Annotated[str | list[dict[str, str]], BeforeValidator(_parts)]


class _Item(BodyModel):
    # Other fields of an item (status, phase, ...) mean nothing to a model.
    model_config = ConfigDict(extra="ignore", strict=True)


class MessageItem(_Item):
    """One message. `content` may be text or a list of text parts."""

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
        return shown_call(
            "function_call", self.call_id, self.name, self.arguments, namespace=self.namespace
        )


class FunctionCallOutputItem(_Item):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Text

    def body(self) -> Body:
        return shown_output("function_call_output", self.call_id, self.output)


class CustomToolCallItem(_Item):
    """A call of a custom tool, whose input is text."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: str = Field(min_length=1, max_length=128)
    namespace: str | None = Field(None, max_length=64)
    input: str

    def body(self) -> Body:
        return shown_call(
            "custom_tool_call", self.call_id, self.name, self.input, namespace=self.namespace
        )


class CustomToolCallOutputItem(_Item):
    """The result of a call of a custom tool."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: Text

    def body(self) -> Body:
        return shown_output("custom_tool_call_output", self.call_id, self.output)


class HostedItem(_Item):
    """An item of a tool on OpenAI's servers, which no model here can read. It is left out."""

    type: str = Field(max_length=64)


class ReasoningItem(_Item):
    """The reasoning of a model before its answer. An `encrypted_content` from elsewhere cannot be read here
    and is left out."""

    type: Literal["reasoning"]
    summary: Annotated[list[dict[str, str]], BeforeValidator(_parts)] = Field(default_factory=list)
    content: Annotated[list[dict[str, str]] | None, BeforeValidator(_parts)] = None

    def body(self) -> Body:
        return shown_reasoning(text_of(self.content)) | {"summary": self.summary}


class ItemReference(_Item):
    """A reference to a stored item by its id."""

    type: Literal["item_reference"] | None = "item_reference"
    id: str = Field(min_length=1, max_length=100)

    def body(self) -> Body:
        return {"type": REFERENCE, "id": self.id}


KINDS = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "custom_tool_call": CustomToolCallItem,
    "custom_tool_call_output": CustomToolCallOutputItem,
    "reasoning": ReasoningItem,
    "item_reference": ItemReference,
}


# Items of tools that run elsewhere, and items that only OpenAI's models understand.
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


def item_bodies(items: Iterable[InputItem]) -> list[Body]:
    """Items as serving/ takes them; items of tools that run elsewhere are left out."""
    return [item.body() for item in items if not isinstance(item, HostedItem)]
