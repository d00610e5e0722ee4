"""The tools of a request as one grammar: each one's schema checked, and what is wrong named by its tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeagent.engine import schema as schemas
from edgeagent.engine.constrain import JSON_STYLE, Source, check_meta
from edgeagent.engine.syntax.family import Family, Function, json_rule, quoted
from edgeagent.errors import EdgeAgentError, InvalidParameter, UnsupportedParameter
from edgeagent.types import Form, Tool, ToolUse

PARAM = "tools"


def source_of_tools(
    use: ToolUse, form: Form | None, family: Family, markers: Mapping[str, int]
) -> Source:
    """A grammar of calls; with a `form`, of calls or an answer that has it.

    `markers` are the special tokens of the family's markers. Raises: InvalidParameter,
    UnsupportedParameter.
    """
    tools = [tool for tool in use.tools if use.name is None or tool.name == use.name]
    checked = {tool.name: checked_tool(tool) for tool in tools}
    n_calls = family.max_calls if use.is_parallel and use.name is None else 1
    style = JSON_STYLE | {
        "item_separator": family.style.item,
        "key_separator": family.style.key,
    }

    def mark(name: str) -> str:
        return f"<[{markers[name]}]>" if name in markers else quoted(name)

    functions = [Function(name, found.narrowed) for name, found in checked.items()]
    if form is None or use.choice == "required":
        rules = family.grammar(functions, n_calls, mark, style)
        return Source(f"start: calls\n{rules}", None, checked, dict(markers))
    answer = _checked_form(form)
    rules = family.grammar(functions, n_calls, mark, JSON_STYLE, is_mixed=True)
    start = f"start: calls | answer\nanswer: {json_rule(answer.narrowed, JSON_STYLE)}"
    return Source(f"{start}\n{rules}", answer, checked, dict(markers))


def _checked_form(form: Form) -> schemas.Checked:
    if form.kind != "json_schema":
        raise UnsupportedParameter(
            f"A response format of type {form.kind!r} goes without `tools`: use `json_schema`, or leave "
            "one out.",
            param=schemas.PARAM,
        )
    found = schemas.checked(form.text)
    check_meta(found.schema)
    return found


def checked_tool(tool: Tool) -> schemas.Checked:
    """A tool's schema within bounds. Raises: InvalidParameter, UnsupportedParameter, with its name."""
    try:
        found = schemas.checked(json.dumps(arguments_schema(tool.parameters)))
        check_meta(found.schema)
    except EdgeAgentError as exc:
        raise of_tool(exc, tool.name) from exc
    except RecursionError:
        raise InvalidParameter(
            f"Tool {tool.name!r}: its parameters are nested too deeply: use `$defs` and `$ref`.",
            param=PARAM,
        ) from None
    return found


def arguments_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call's arguments: always an object, and an empty one where none are named."""
    schema = {"type": "object"} | parameters
    if schema["type"] != "object":
        raise InvalidParameter(
            f"The schema's `type` at # is {json.dumps(schema['type'])[:80]}, and the arguments of a call "
            'are an object: write `"type": "object"`.',
            param=PARAM,
        )
    says_more = schema.keys() & {
        "$ref", "anyOf", "oneOf", "allOf", "patternProperties", "additionalProperties", "const", "enum",
        "minProperties",
    }  # fmt: skip
    if not schema.get("properties") and not schema.get("required") and not says_more:
        schema["additionalProperties"] = False
    return schema


def of_tool(error: EdgeAgentError, name: str) -> EdgeAgentError:
    """What is wrong with a schema, with the name of its tool."""
    return type(error)(f"Tool {name!r}: {error.message}", param=PARAM)
