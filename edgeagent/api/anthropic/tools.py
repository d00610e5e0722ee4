"""Tools in Anthropic's requests: the client's own, those that Anthropic's models know, and those of its
servers.

A tool that Anthropic's models know by its type and the client runs (a shell, an editor, a desktop, a
memory) becomes a function here, with our own description of its input. A tool that runs on Anthropic's
servers is left out, and a note says so. The input schemas are our own and were not compared with a
published list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, StringConstraints, Tag

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import STRICT, IgnoredField
from edgeagent.errors import UnsupportedParameter
from edgeagent.serving.tool_offer import ToolOffer
from edgeagent.types.tools import Tool

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]

Schema = dict[str, Any]
_DATE = r"_\d{8}"
# Versions append a date to the name.
CLIENTS = re.compile(rf"(bash|text_editor|computer|memory){_DATE}")
SERVICES = re.compile(
    rf"(web_search|web_fetch|code_execution|tool_search_tool(_regex|_bm25)?|advisor){_DATE}"
    r"|tool_search_tool_(regex|bm25)|mcp_toolset"
)


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _place(description: str, n: int = 2) -> Schema:
    whole = {"type": "integer"}
    return {
        "type": "array",
        "items": whole,
        "minItems": n,
        "maxItems": n,
        "description": description,
    }


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": [*values]}


_LINE = {
    "type": "integer",
    "minimum": 0,
    "description": "Line to insert behind; 0 is the beginning.",
}
_EDITS = {
    "path": _text("Absolute path of the file or folder."),
    "file_text": _text("For create: the whole content."),
    "old_str": _text("For str_replace: the text to replace, which occurs once."),
    "new_str": _text("For str_replace: what stands in its place."),
    "insert_line": _LINE,
    "view_range": _place("For view: the first and the last line."),
}
_ACTIONS = (
    "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click",
    "double_click", "screenshot", "cursor_position",
)  # fmt: skip
_MORE_ACTIONS = (
    "left_mouse_down", "left_mouse_up", "triple_click", "scroll", "hold_key", "wait",
)  # fmt: skip


def _bash(version: str, settings: Schema) -> tuple[str, Schema]:
    about = "Run a command in a shell whose state is kept from one call to the next."
    return about, _object(
        [],
        command=_text("The command. Needed unless the shell is restarted."),
        restart={"type": "boolean", "description": "True starts the shell anew."},
    )


def _text_editor(version: str, settings: Schema) -> tuple[str, Schema]:
    commands = ["view", "create", "str_replace", "insert"]
    edits = dict(_EDITS)
    if version < "20250429":
        commands.append("undo_edit")
        edits["new_str"] = _text("For str_replace and insert: the new text.")
    else:
        edits["insert_text"] = _text("For insert: the new text.")
    about = "View, create and change text files."
    return about, _object(["command", "path"], command=_one_of(*commands), **edits)


def _computer(version: str, settings: Schema) -> tuple[str, Schema]:
    width, height = settings.get("display_width_px"), settings.get("display_height_px")
    size = f" It is {width} by {height} pixels." if width and height else ""
    actions: tuple[str, ...] = _ACTIONS
    more: Schema = {}
    if version >= "20250124":
        actions += _MORE_ACTIONS
        more = {
            "scroll_direction": _one_of("up", "down", "left", "right"),
            "scroll_amount": {"type": "integer", "minimum": 0},
            "duration": {"type": "number", "minimum": 0, "description": "Seconds to hold or wait."},
        }
    if settings.get("enable_zoom"):
        actions += ("zoom",)
        more["region"] = _place("For zoom: left, top, right and bottom edge.", 4)
    about = f"Use the screen, the mouse and the keyboard of a desktop.{size}"
    return about, _object(
        ["action"],
        action=_one_of(*actions),
        coordinate=_place("Pixels from the left and from the top."),
        start_coordinate=_place("Where a drag begins."),
        text=_text("What to type, or the key to press."),
        **more,
    )


def _memory(version: str, settings: Schema) -> tuple[str, Schema]:
    about = "Keep notes in files below /memories, which outlast a conversation."
    return about, _object(
        ["command"],
        command=_one_of("view", "create", "str_replace", "insert", "delete", "rename"),
        **_EDITS,
        insert_text=_text("For insert: the new text."),
        old_path=_text("For rename: the path so far."),
        new_path=_text("For rename: the new path."),
    )


_KNOWN = {"bash": _bash, "text_editor": _text_editor, "computer": _computer, "memory": _memory}


class CustomTool(BodyModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="a JSON schema of the arguments")
    type: Literal["custom"] | None = None
    strict: bool | None = Field(None, description=STRICT)
    cache_control: Annotated[dict[str, Any] | None, IgnoredField("prefixes are found")] = None
    defer_loading: Annotated[bool | None, IgnoredField()] = None
    eager_input_streaming: Annotated[bool | None, IgnoredField()] = None
    input_examples: Annotated[list[dict[str, Any]] | None, IgnoredField()] = None
    allowed_callers: Annotated[list[str] | None, IgnoredField()] = None

    def offer(self, offer: ToolOffer) -> None:
        offer.add(
            Tool(
                name=self.name,
                description=self.description,
                parameters=self.input_schema,
                is_strict=bool(self.strict),
            )
        )


class ClientTool(BodyModel):
    """A tool that Anthropic's models know and the client runs, such as `bash_20250124`: offered to the
    model as a function."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)
    name: ToolName
    display_width_px: int | None = Field(None, ge=1, le=1 << 16)
    display_height_px: int | None = Field(None, ge=1, le=1 << 16)
    enable_zoom: bool | None = None

    def offer(self, offer: ToolOffer) -> None:
        kind, _, version = self.type.rpartition("_")
        about, parameters = _KNOWN[kind](version, self.model_dump())
        offer.add(Tool(name=self.name, description=about, parameters=parameters))


class ServiceTool(BodyModel):
    """A tool that runs on Anthropic's servers: left out, and a note says so."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)
    name: str | None = Field(None, max_length=128)

    def offer(self, offer: ToolOffer) -> None:
        offer.leave_out(self.type)


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if not isinstance(kind, str) or kind == "custom":
        return "tag-custom"
    if CLIENTS.fullmatch(kind):
        return "tag-client"
    if SERVICES.fullmatch(kind):
        return "tag-service"
    raise UnsupportedParameter(
        f"A tool of type {kind[:60]!r} is not known here: define it as a tool of your own, with `name` "
        "and `input_schema`.",
        param="tools",
    )


AnthropicTool = Annotated[
    Annotated[CustomTool, Tag("tag-custom")]
    | Annotated[ClientTool, Tag("tag-client")]
    | Annotated[ServiceTool, Tag("tag-service")],
    Discriminator(_kind),
]


def tool_offer_of(
    tools: Iterable[CustomTool | ClientTool | ServiceTool], *, n_servers: int
) -> ToolOffer:
    """The tools of a request as the model sees them. The tools of `n_servers` MCP servers are left out."""
    offer = ToolOffer()
    for tool in tools:
        tool.offer(offer)
    if n_servers:
        offer.leave_out("mcp_servers")
    return offer
