"""Answers that are sentences of passages."""

from __future__ import annotations

import pytest

from edgeagent.knowledge.quotes import (
    MAX_CHARS,
    N_JUDGED,
    Candidate,
    candidates,
    judged_quote,
    quoted,
    scored,
    to_judge,
)

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
    assert quoted(scored(question, found, ["Pets", "Fares"], similarity)).text == text


def test_an_answer_is_bounded_and_may_be_empty() -> None:
    assert quoted({}) == ((), 0)
    long = Candidate(0, 0, "boat " * 1000)
    assert len(quoted(scored("A boat?", [long], [""], {})).text) == MAX_CHARS


def told(*texts: str, passage: int = 0) -> list[Candidate]:
    return [Candidate(passage, place, text) for place, text in enumerate(texts)]


def test_a_judge_is_asked_about_the_best_sentences_of_two_passages() -> None:
    found = [*told(*"abcdefgh"), *told("i", passage=1), *told("j", passage=2)]
    scores = {one: n / 10 for n, one in enumerate(found)}
    asked = to_judge(scores)
    assert len(asked) == N_JUDGED and [one.text for one in asked[:3]] == ["i", "h", "g"]


@pytest.mark.parametrize(
    ("said", "passages", "text", "score"),
    [
        # Its word counts more than nearness.
        ({"Dogs": 0.9, "Cats": 0.1, "Cars": 0.1}, [0.8, 0.6], "Dogs", 0.85),
        # What is nearly as good belongs to the answer, as it stands in the passages.
        ({"Dogs": 0.5, "Cats": 0.6, "Cars": 0.1}, [0.8, 0.1], "Dogs Cats", 0.7),
        ({"Dogs": 0.6, "Cats": 0.1, "Cars": 0.7}, [0.8, 0.8], "Dogs Cars", 0.75),
        # A sentence of a passage that does not answer is worth less, and tells nothing of the score.
        ({"Dogs": 0.6, "Cats": 0.1, "Cars": 0.9}, [0.8, 0.1], "Dogs", 0.7),
    ],
)
def test_of_judged_sentences_the_best_and_what_is_nearly_as_good_answer(
    said: dict[str, float], passages: list[float], text: str, score: float
) -> None:
    found = [*told("Dogs", "Cats"), *told("Cars", passage=1)]
    scores = dict(zip(found, [0.1, 0.2, 0.3], strict=True))
    quote = judged_quote(scores, {one: said[one.text] for one in found}, passages)
    assert (quote.text, quote.score) == (text, pytest.approx(score))


def test_a_judged_answer_is_bounded_and_may_be_empty() -> None:
    assert judged_quote({}, {}, [0.5]) == ((), 0)
    long = told("boat " * 100, "ship " * 100)
    quote = judged_quote(dict.fromkeys(long, 0.5), {long[0]: 0.8, long[1]: 0.9}, [0.5])
    assert quote.text == long[1].text


def test_what_two_chunks_have_is_asked_and_told_once() -> None:
    found = [*told("Dogs", "Cats"), *told("Dogs", passage=1)]
    scores = dict(zip(found, [0.3, 0.2, 0.4], strict=True))
    asked = to_judge(scores)
    assert [one.text for one in asked] == ["Dogs", "Cats"]
    assert (
        judged_quote(scores, dict(zip(asked, [0.9, 0.1], strict=True)), [0.8, 0.8]).text == "Dogs"
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        # What speaks of "they" comes with what they are, in place of the second best.
        ([0.2, 0.9, 0.8], "Dogs are free. They need a lead."),
        # And is no second sentence behind one of another passage.
        ([0.2, 0.8, 0.9], "Cats need a basket."),
        ([0.9, 0.8, 0.2], "Dogs are free. They need a lead."),
    ],
)
def test_a_pronoun_stays_with_what_it_stands_for(said: list[float], text: str) -> None:
    found = [*told("Dogs are free.", "They need a lead."), *told("Cats need a basket.", passage=1)]
    scores = dict.fromkeys(found, 0.1)
    quote = judged_quote(scores, dict(zip(found, said, strict=True)), [0.8, 0.8])
    assert quote.text == text
