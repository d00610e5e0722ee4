"""Functions that a model may call."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may call. `parameters` is the JSON schema of its arguments, empty for a
    function without arguments. A schema without `is_strict` is enforced as far as possible."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    is_strict: bool = False


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of one request. With `choice` "required" the answer is a call, with `name` one call of
    that tool; without `is_parallel` it has one call at most. A request that must not call tools has no
    `ToolUse`. An empty list of tools stands for the model's own tools."""

    tools: list[Tool]
    choice: Literal["auto", "required"] = "auto"
    name: str | None = None
    is_parallel: bool = True
