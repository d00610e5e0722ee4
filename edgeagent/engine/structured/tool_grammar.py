"""Makes one grammar of the tools of a request. Errors in a schema name its tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeagent.engine.structured import schema_bounds as schemas
from edgeagent.engine.structured.answer_checks import check_meta
from edgeagent.engine.structured.grammar import JSON_STYLE, Source, checked_form
from edgeagent.engine.structured.schema_relaxation import (
    Attempt,
    Relaxation,
    loosened,
    made,
    weaker,
)
from edgeagent.engine.structured.schema_repair import RepairNote
from edgeagent.engine.tool_syntax.tool_syntax import Family, Function, json_rule, quoted
from edgeagent.errors import EdgeAgentError, InvalidParameter, UnsupportedParameter
from edgeagent.types.generation import Form
from edgeagent.types.tools import Tool, ToolUse

PARAM = "tools"

# Reading schemas takes 10 us a byte on one slow core, and nothing else is compiled meanwhile: with 128 tools
# of 20 kB each a worker was silent for so long that it was killed as hung.
MAX_SCHEMAS_BYTES = 256 << 10


def source_of_tools(
    use: ToolUse,
    form: Form | None,
    family: Family,
    markers: Mapping[str, int],
    attempt: Attempt | None = None,
) -> Source:
    """A grammar of calls; with a `form`, of calls or an answer that has it.

    `markers` are the special tokens of the family's markers. With an `attempt` what it refuses is left out
    of schemas that need not hold wholly. Raises: InvalidParameter, UnsupportedParameter.
    """
    tools = [tool for tool in use.tools if use.name is None or tool.name == use.name]
    _check_size(tools)
    checked = {tool.name: checked_tool(tool, attempt) for tool in tools}
    is_mixed = form is not None and use.choice != "required"
    answer = _checked_form(form, attempt) if form is not None and is_mixed else None
    n_calls = family.max_calls if use.is_parallel and use.name is None else 1
    style = JSON_STYLE | {
        "item_separator": family.style.item,
        "key_separator": family.style.key,
    }
    functions = [Function(name, found.narrowed) for name, found in checked.items()]

    def grammar(tokens: Mapping[str, int]) -> str:
        def mark(name: str) -> str:
            return f"<[{tokens[name]}]>" if name in tokens else quoted(name)

        if answer is None:
            return f"start: calls\n{family.grammar(functions, n_calls, mark, style)}"
        rules = family.grammar(functions, n_calls, mark, JSON_STYLE, is_mixed=True)
        start = f"start: calls | answer\nanswer: {json_rule(answer.narrowed, JSON_STYLE)}"
        return f"{start}\n{rules}"

    spelled = grammar({}) if markers else None
    return Source(grammar(markers), answer, checked, dict(markers), spelled)


def _check_size(tools: Sequence[Tool]) -> None:
    """Raises: InvalidParameter."""
    n_bytes = sum(len(json.dumps(tool.parameters)) for tool in tools)
    if n_bytes > MAX_SCHEMAS_BYTES:
        raise InvalidParameter(
            f"The parameters of all tools have {n_bytes} bytes, the bound is {MAX_SCHEMAS_BYTES}: offer "
            "fewer tools, or describe them in fewer words.",
            param=PARAM,
        )


def _checked_form(form: Form, attempt: Attempt | None) -> schemas.BoundedSchema:
    if form.kind != "json_schema":
        raise UnsupportedParameter(
            f"A response format of type {form.kind!r} goes without `tools`: use `json_schema`, or leave "
            "one out.",
            param=schemas.PARAM,
        )
    return checked_form(form, attempt)


def checked_tool(tool: Tool, attempt: Attempt | None = None) -> schemas.BoundedSchema:
    """A tool's schema within bounds. Raises: InvalidParameter, UnsupportedParameter, with its name."""
    try:
        if not tool.is_strict:
            found = _loosely_checked(tool.parameters)
            return found if attempt is None else weaker(found, attempt)
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


def _loosely_checked(parameters: dict[str, Any]) -> schemas.BoundedSchema:
    """The arguments of a call are an object, whatever a schema says."""
    found = loosened(schemas.parsed(json.dumps(parameters)))
    notes = list(found.notes)
    if not found.enforced.keys() & {"$ref", "anyOf", "allOf"} and "object" not in _types(found):
        kind = json.dumps(found.enforced["type"])
        notes.append(
            RepairNote("#", "type", f"is {kind}, and the arguments of a call are an object")
        )
        found = found._replace(enforced={}, whole={})
    enforced = arguments_schema(found.enforced | {"type": "object"})
    return made(Relaxation(enforced, found.whole, notes))


def _types(found: Relaxation) -> list[str]:
    kind = found.enforced.get("type", "object")
    return kind if isinstance(kind, list) else [kind]


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
    """The error of a schema, with the name of its tool."""
    return type(error)(f"Tool {name!r}: {error.message}", param=PARAM)
