"""Suites of tasks with known answers: one JSON object a line, in five kinds.

    {"kind": "choice", "prompt": "...", "choices": ["billing", "delivery"], "answer": "billing"}
    {"kind": "exact", "prompt": "...", "answers": ["Paris"]}
    {"kind": "summary", "prompt": "...", "reference": "..."}
    {"kind": "schema", "prompt": "...", "schema": {...}, "expected": {...}}
    {"kind": "call", "prompt": "...", "tools": [...], "expected": {"name": "...", "arguments": {...}}}

`system` and `max_tokens` may be given with each; `expected` of a schema may be left out: then an answer that
is valid counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.texts import read_text


class Task(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What every task has."""

    prompt: str
    system: str | None = None
    max_tokens: int = 128


class ChoiceTask(Task, frozen=True, kw_only=True, tag="choice"):
    choices: list[str]
    answer: str


class ExactTask(Task, frozen=True, kw_only=True, tag="exact"):
    answers: list[str]


class SummaryTask(Task, frozen=True, kw_only=True, tag="summary"):
    reference: str


class SchemaTask(Task, frozen=True, kw_only=True, tag="schema"):
    schema: dict[str, Any]
    expected: Any = None


class CallTask(Task, frozen=True, kw_only=True, tag="call"):
    tools: list[dict[str, Any]]
    expected: dict[str, Any]


AnyTask = ChoiceTask | ExactTask | SummaryTask | SchemaTask | CallTask


@dataclass(frozen=True)
class Suite:
    """The tasks of one file, under its name."""

    name: str
    tasks: tuple[AnyTask, ...]


def read_suite(path: Path) -> Suite:
    """Raises: InvalidParameter, which names the line."""
    tasks: list[AnyTask] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            task = msgspec.json.decode(line, type=AnyTask)
        except msgspec.MsgspecError as exc:
            raise InvalidParameter(
                f"Line {number} of {path} is not a task ({exc}): see `edgeagent evaluate --help`."
            ) from exc
        if isinstance(task, ChoiceTask) and task.answer not in task.choices:
            raise InvalidParameter(
                f"Line {number} of {path} has the answer {task.answer!r}, which is none of its choices: "
                "correct it."
            )
        if isinstance(task, ExactTask) and not task.answers:
            raise InvalidParameter(f"Line {number} of {path} has no answers: give at least one.")
        tasks.append(task)
    if not tasks:
        raise InvalidParameter(f"{path} has no tasks: write one JSON object a line.")
    return Suite(path.stem, tuple(tasks))


def request_body(task: AnyTask, model: str) -> dict[str, Any]:
    """The body of `POST /v1/chat/completions` for a task: greedy, and held to its choices or schema."""
    messages = [{"role": "system", "content": task.system}] if task.system is not None else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": task.prompt}],
        "temperature": 0,
        "max_tokens": task.max_tokens,
    }
    if isinstance(task, ChoiceTask):
        schema = {
            "type": "object", "properties": {"answer": {"enum": task.choices}}, "required": ["answer"],
            "additionalProperties": False,
        }  # fmt: skip
        body["response_format"] = _format(schema)
    elif isinstance(task, SchemaTask):
        body["response_format"] = _format(task.schema)
    elif isinstance(task, CallTask):
        body |= {"tools": task.tools, "tool_choice": "required"}
    return body


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }  # fmt: skip
