"""Tokens of answers by the reports of engines, which come in different places."""

from __future__ import annotations

import msgspec
import pytest

from edgeagent.routing.upstreams.token_counts import TokenCounts, UsageReport


def usage(n_prompt: int, n_generated: int | None = None, n_cached: int = 0) -> UsageReport:
    given = {"prompt_tokens": n_prompt, "prompt_tokens_details": {"cached_tokens": n_cached}}
    return msgspec.convert(given | {"completion_tokens": n_generated}, UsageReport)


# What comes, in order: ("add", part, characters), ("end", part), or a report.
Step = tuple[str, int, int] | tuple[str, int] | UsageReport


def counted(n_prompts: int, n_each: int, steps: list[Step]) -> TokenCounts:
    counts = TokenCounts(n_prompts, n_each, n_prompt=50)
    for step in steps:
        if isinstance(step, UsageReport):
            counts.report(step)
        elif step[0] == "add":
            counts.add(*step[1:])
        else:
            counts.end(step[1])
    return counts


REPORTS: list[tuple[str, int, int, list[Step], list[tuple[int, int, int]]]] = [
    ("once at the end", 1, 1, [("add", 0, 4), ("end", 0), usage(11, 4, 5)], [(11, 5, 4)]),
    ("never", 1, 1, [("add", 0, 4), ("add", 0, 4), ("end", 0)], [(50, 0, 2)]),
    ("never, in large pieces", 1, 1, [("add", 0, 400), ("end", 0)], [(50, 0, 100)]),
    ("a long word is one token", 1, 1, [("add", 0, 16), ("end", 0)], [(50, 0, 1)]),
    ("before the end", 1, 1, [usage(7), ("add", 0, 4), ("end", 0)], [(7, 0, 1)]),
    ("so far, with each piece", 1, 1,
     [("add", 0, 4), usage(7, 1), ("add", 0, 4), usage(7, 2), ("end", 0), usage(7, 3)], [(7, 0, 3)]),
    ("so far, and with the end", 1, 1, [("add", 0, 4), usage(7, 1), ("end", 0), usage(7, 2), usage(7, 2)],
     [(7, 0, 2)]),
    ("once for two answers", 1, 2,
     [("add", 0, 4), ("add", 1, 4), ("add", 1, 4), ("end", 0), ("end", 1), usage(7, 6)],
     [(7, 0, 2), (7, 0, 4)]),
    # llama-server
    ("for each of two answers", 1, 2,
     [("add", 0, 4), ("add", 1, 4), ("end", 1), usage(31, 4, 30), ("end", 0), usage(31, 5, 8)],
     [(31, 8, 5), (31, 8, 4)]),
    ("for each of two prompts", 2, 1,
     [("add", 0, 4), ("end", 1), usage(9, 4), ("end", 0), usage(6, 5)], [(7, 0, 5), (8, 0, 4)]),
    ("for one of two answers, the other one is cut", 1, 2,
     [("add", 0, 4), ("end", 1), usage(31, 9), ("add", 0, 4)], [(31, 0, 2), (31, 0, 9)]),
    # vLLM with continuous_usage_stats: the last one is for all
    ("for each answer and then for all", 1, 2,
     [("add", 0, 4), ("add", 1, 40), ("end", 0), usage(7, 2), ("end", 1), usage(7, 20), usage(7, 22)],
     [(7, 0, 2), (7, 0, 20)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("n_prompts", "n_each", "steps", "parts"),
    [case[1:] for case in REPORTS],
    ids=[case[0] for case in REPORTS],
)
def test_counts_by_the_reports_of_an_engine(n_prompts, n_each, steps, parts):
    counts = counted(n_prompts, n_each, steps)
    found = [counts.of(index) for index in range(n_prompts * n_each)]
    assert [(one.n_prompt, one.n_cached, one.n_generated) for one in found] == parts
    assert counts.n_generated == sum(one.n_generated for one in found)


def test_log_probabilities_count_the_tokens_of_a_piece():
    counts = TokenCounts(1, 1, 5)
    counts.add(0, 60, n_tokens=9)
    assert counts.n_generated == 9
