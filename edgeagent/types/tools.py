"""Functions that a model may call."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may ask to be called; `parameters` is the JSON schema of its arguments, an
    empty one that of a function without any. One that is not `is_strict` is enforced as far as it can be."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    is_strict: bool = False


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of one request. `choice` "required" makes the answer a call, `name` one call of that
    tool; without `is_parallel` there is one call at most. Where none may be called, there is no `ToolUse`.
    One without tools means those of the model itself."""

    tools: list[Tool]
    choice: Literal["auto", "required"] = "auto"
    name: str | None = None
    is_parallel: bool = True
