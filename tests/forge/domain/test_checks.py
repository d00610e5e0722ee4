"""What is noticed about examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeagent.forge.datasets import Slot
from edgeagent.forge.domain.checks import (
    check,
    confused_pairs,
    nearest_pairs,
    without_duplicates,
)
from edgeagent.forge.domain.example import Domain, Place


def domain_of(**texts: list[str]) -> Domain:
    domain, line = Domain(), 0
    for intent, given in texts.items():
        for text in given:
            line += 1
            domain.add(text, intent, Place(Path("a.csv"), line))
    return domain


def plain(n: int, word: str = "text") -> list[str]:
    return [f"{word} {i}" for i in range(n)]


def said(domain: Domain) -> list[str]:
    return [str(finding) for finding in check(domain)]


def test_good_examples_have_no_findings():
    assert said(domain_of(a=plain(6, "x"), b=plain(6, "y"))) == []


def test_marks_of_slots_that_are_not_whole_are_told():
    texts = [
        "book [two](party_size",
        "a table [for two(party_size)",
        "see [1] (here",
        "x [ok] y",
        "array[3]",
    ]
    found = said(domain_of(a=[*texts, *plain(3)], b=plain(6, "y")))
    assert [line.split(": ")[1] for line in found] == ["a.csv:1", "a.csv:2", "a.csv:3"]
    assert "'[two](party_size' is no whole mark of a slot and stays text" in found[0]


def test_contradictions_name_both_places():
    (only,) = said(domain_of(a=plain(5), b=[*plain(5, "b"), "Text, 3!"]))
    assert only.startswith("error: a.csv:11: 'Text, 3!' is 'b' here and 'a' at a.csv:4: ")


def test_intents_with_too_few_examples():
    one, few = said(domain_of(a=plain(9), b=["hello"], c=plain(4, "y")))
    assert "error: a.csv:10: intent 'b' has 1 example" in one
    assert "warning: a.csv:11: intent 'c' has 4 examples" in few


def test_one_intent_is_no_choice():
    assert any("there are 1 intents" in one for one in said(domain_of(a=plain(9))))


def test_duplicates_count_once_and_slots_are_kept():
    domain = domain_of(a=[*plain(5), "TEXT 1?"], b=plain(5, "y"))
    domain.add("y 1", "b", Place(Path("a.csv"), 12), [Slot("n", "1", 2, 3)])
    assert [one.partition(":")[0] for one in said(domain)] == ["warning", "warning"]
    kept = without_duplicates(domain)
    assert len(kept.examples) == 10
    assert kept.slot_names == {"b": ("n",)}


def test_unbalanced_intents_are_named():
    (only,) = said(domain_of(a=plain(60), b=plain(6, "y")))
    assert "intent 'b' has 6 examples and 'a' 60" in only


def test_many_findings_are_cut():
    found = said(domain_of(a=plain(50), b=plain(50)))
    assert len([one for one in found if one.startswith("error")]) == 21
    assert "and 30 more contradictory labels." in found[20]


def test_answers_need_examples():
    domain = domain_of(a=plain(6, "x"), b=plain(6, "y"))
    domain.answers["c"] = "Hello."
    assert said(domain) == [
        "warning: 'c' has an answer and no examples: add some, or correct the name."
    ]


def test_the_nearest_texts_of_different_intents_are_shown():
    domain = domain_of(a=["one", "two"], b=["three", "four"])
    vectors = np.array([[1, 0], [0, 1], [1, 0.1], [-1, 0]], np.float32)
    (only,) = nearest_pairs(domain.examples, vectors)
    assert "'one' (a) is very near to 'three' (b, a.csv:3), likeness 1.00" in str(only)


def test_confused_intents_are_shown():
    (only,) = confused_pairs(["a"] * 10 + ["b"] * 10, ["b"] * 4 + ["a"] * 7 + ["b"] * 9)
    assert "4 of 10 texts of 'a' are taken for 'b'" in str(only)
