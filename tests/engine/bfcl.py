"""Questions, tools and possible answers of the Berkeley Function Calling Leaderboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from tests.engine.schema_corpus import translated

FILES = ("simple_python", "multiple", "parallel")
Called = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A question with its tools. `answers` are the calls that are right: for each argument the values
    that will do, "" where it may be left out."""

    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    answers: list[tuple[str, dict[str, list[Any]]]]

    def schema(self, name: str) -> dict[str, Any]:
        (found,) = (t["function"] for t in self.tools if t["function"]["name"] == name)
        return dict(found["parameters"])


def cases(folder: Path, n: int) -> list[Case]:
    """The first `n`, from each of the files in turn."""
    found = chain.from_iterable(zip_longest(*(_cases(folder, name) for name in FILES)))
    return [case for case in found if case is not None][:n]


def _cases(folder: Path, name: str) -> Iterator[Case]:
    asked = _rows(folder / f"BFCL_v4_{name}.json")
    right = _rows(folder / "possible_answer" / f"BFCL_v4_{name}.json")
    truths = {row["id"]: row["ground_truth"] for row in right}
    for row in asked:
        tools = [
            {
                "type": "function",
                "function": {
                    "name": safe(function["name"]),
                    "description": function["description"],
                    "parameters": translated(function["parameters"]),
                },
            }
            for function in row["function"]
        ]
        answers = [
            (safe(called), arguments)
            for truth in truths[row["id"]]
            for called, arguments in truth.items()
        ]
        yield Case(row["id"], row["question"][0], tools, answers)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def safe(name: str) -> str:
    """A function's name as OpenAI allows it: no dots."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]


def has_right_functions(case: Case, calls: list[Called]) -> bool:
    return sorted(name for name, _ in calls) == sorted(name for name, _ in case.answers)


def is_right(case: Case, calls: list[Called]) -> bool:
    """Whether the calls are those of a possible answer, in any order."""
    left = list(calls)
    for name, wanted in case.answers:
        fitting = [c for c in left if c[0] == name and _fits(c[1], wanted)]
        if not fitting:
            return False
        left.remove(fitting[0])
    return not left


def _fits(arguments: dict[str, Any], wanted: dict[str, list[Any]]) -> bool:
    return arguments.keys() <= wanted.keys() and all(
        _is_one_of(arguments[key], values) if key in arguments else "" in values
        for key, values in wanted.items()
    )


def _is_one_of(value: Any, values: list[Any]) -> bool:
    return any(_plain(value) == _plain(other) for other in values)


def _plain(value: Any) -> Any:
    """A value without what does not matter: case, spaces and punctuation of texts; 1 is 1.0."""
    if isinstance(value, str):
        return re.sub(r"[ ,./\-_*^]", "", value.lower()).replace("'", '"')
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        # A possible answer has a list of values within objects too.
        return {
            key: _plain(item[0] if isinstance(item, list) and item else item)
            for key, item in value.items()
        }
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
