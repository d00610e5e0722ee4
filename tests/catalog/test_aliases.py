"""Names of other providers' models that stand for one that is installed."""

from __future__ import annotations

import pytest

from edgeagent.catalog.aliases import Aliases, is_pattern

TABLE = {"gpt-4o*": "default", "gpt-4o-mini": "small", "claude-*": "default", "*": "rest"}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt-4o", "default"), ("gpt-4o-2024-08-06", "default"), ("gpt-4o-mini", "small"),
        ("GPT-4o-Mini", "small"), ("Claude-Opus-4", "default"), ("gpt-3.5-turbo", "rest"),
        ("openai/gpt-4o", "rest"),
    ],
)  # fmt: skip
def test_exact_names_count_before_patterns_and_these_in_their_order(name, target):
    assert Aliases(TABLE).target(name) == target


def test_without_a_table_nothing_is_an_alias():
    assert Aliases({}).target("gpt-4o") is None
    assert Aliases({"gpt-4o": "x"}).target("gpt-4o-mini") is None


def test_a_model_knows_its_names():
    assert Aliases(TABLE).of("default") == ("gpt-4o*", "claude-*")
    assert Aliases(TABLE).of("default", "small") == ("gpt-4o*", "gpt-4o-mini", "claude-*")
    assert [is_pattern(name) for name in ("a*", "a?", "[ab]", "a-b.c/d:e")] == [True] * 3 + [False]
