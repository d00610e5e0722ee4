"""Answers that are sentences of passages."""

from __future__ import annotations

import pytest

from edgeagent.knowledge.quotes import MAX_CHARS, Candidate, candidates, quoted

DOGS = "Dogs travel free of charge. They must be on a lead. Cats travel in a basket."
FARES = "| from | single |\n|---|---|\n| Skerry | 9.50 pounds |\nA car costs 31 pounds. Children pay half."


def test_rules_of_tables_and_short_pieces_are_no_candidates() -> None:
    texts = [one.text for one in candidates([FARES, DOGS])]
    assert not any(set(text) <= set("|- ") for text in texts)
    assert texts[-3:] == [
        "Dogs travel free of charge.", "They must be on a lead.", "Cats travel in a basket."
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "near", "text"),
    [
        ("Do cats need a basket?", {}, "Cats travel in a basket."),
        ("How much is a car?", {}, "A car costs 31 pounds."),
        # The vector decides where the words tell nothing.
        ("What about kittens?", {"Cats travel in a basket.": 0.7}, "Cats travel in a basket."),
        # A neighbour that tells nearly as much belongs to it, in the order of the text.
        (
            "What about puppies?",
            {"Dogs travel free of charge.": 0.6, "They must be on a lead.": 0.62},
            "Dogs travel free of charge. They must be on a lead.",
        ),
    ],
)
def test_the_sentence_that_tells_most_is_the_answer(
    question: str, near: dict[str, float], text: str
) -> None:
    found = candidates([DOGS, FARES])
    similarity = {one.text: near.get(one.text, 0.1) for one in found} if near else {}
    assert quoted(question, found, ["Pets", "Fares"], similarity).text == text


def test_an_answer_is_bounded_and_may_be_empty() -> None:
    assert quoted("What?", [], [], {}) == ("", 0)
    long = Candidate(0, 0, "boat " * 1000)
    assert len(quoted("A boat?", [long], [""], {}).text) == MAX_CHARS
