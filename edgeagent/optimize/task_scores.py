"""How well an answer solves a task, 0 to 1: pure.

A choice, an exact answer, an object of a schema and a call are right or wrong. A summary gets ROUGE-L: the
F-measure of the longest common subsequence of words with the reference (Lin 2004, "ROUGE: A Package for
Automatic Evaluation of Summaries"); ROUGE-1 and ROUGE-2 count common words and pairs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jsonschema_rs

from edgeagent.optimize.suites import (
    AnyTask,
    CallTask,
    ChoiceTask,
    ExactTask,
    SchemaTask,
    SummaryTask,
)

_WORD = re.compile(r"\w+")


def score(task: AnyTask, message: dict[str, Any]) -> float:
    """The score of an answer, a message of the API."""
    text = message.get("content") or ""
    match task:
        case ChoiceTask():
            return float(_json(text) == {"answer": task.answer})
        case ExactTask():
            return float(words(text) in [words(answer) for answer in task.answers])
        case SummaryTask():
            return rouge_l(words(text), words(task.reference))
        case SchemaTask():
            value = _json(text)
            is_right = task.expected is None or value == task.expected
            return float(is_right and jsonschema_rs.is_valid(task.schema, value))
        case CallTask():
            calls = message.get("tool_calls") or []
            told = [
                {"name": c["function"]["name"], "arguments": _json(c["function"]["arguments"])}
                for c in calls
            ]
            return float(told == [task.expected])


def words(text: str) -> list[str]:
    """Words in lower case, without marks."""
    return _WORD.findall(text.casefold())


def rouge_n(found: Sequence[str], reference: Sequence[str], n: int) -> float:
    """The F-measure of common runs of `n` words."""
    ours, theirs = (
        Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (found, reference)
    )
    return _f_measure((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(found: Sequence[str], reference: Sequence[str]) -> float:
    """The F-measure of the longest common subsequence."""
    row = [0] * (len(reference) + 1)
    for word in found:
        before = 0
        for i, other in enumerate(reference, 1):
            above = row[i]
            row[i] = before + 1 if word == other else max(row[i], row[i - 1])
            before = above
    return _f_measure(row[-1], len(found), len(reference))


def _f_measure(common: int, n_found: int, n_reference: int) -> float:
    return 2 * common / (n_found + n_reference) if common else 0.0


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
