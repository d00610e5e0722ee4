"""What a judge of answerability learns from: texts by hand, and pairs made of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgeagent.knowledge.words import content_words
from scripts.judge import squad
from scripts.judge.pairs import (
    asked,
    chunks,
    content,
    foreign_pairs,
    holds,
    pairs,
    shortened,
    without,
)
from scripts.judge.squad import squad_pairs
from scripts.judge.texts import organisation, organisations

TEXTS = Path("scripts/judge/texts")
MUSEUM = """% Lorn Museum | museum
# Tickets
A ticket costs 9 euros. Children under six pay nothing. Groups of ten save a fifth.
Guides speak **Danish** and English.
## Parking
Cars park behind the mill. The car park closes at 18:00.
Q+ How much is the entry? | costs 9 euros
Q+ Which languages do the guides know? | Danish** and English
Q- How long does a tour take?
# Cafe
Soup is served from noon. The cafe has twenty seats, and dogs may lie under the tables there.
Day | Soup
Monday | leek
Tuesday | tomato
Q+ What is on the menu on Tuesday? | Tuesday | tomato
Q- Is there a soup for children on Sunday?
"""


def words_alone(texts):
    """Unit vectors of the words that texts have."""
    stems = [content_words(text) for text in texts]
    rows = np.zeros((len(texts), 512))
    for row, own in zip(rows, stems, strict=True):
        for word in own:
            row[sum(word.encode()) % 512] = 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_organisation_is_read_with_its_questions():
    museum = organisation(MUSEUM)
    assert (museum.name, museum.kind) == ("Lorn Museum", "museum")
    tickets, cafe = museum.documents
    assert [(one.text, one.words) for one in cafe.questions] == [
        ("What is on the menu on Tuesday?", "Tuesday | tomato"),
        ("Is there a soup for children on Sunday?", None),
    ]
    assert tickets.markdown.startswith("# Tickets\n\nA ticket costs") and "Q+" not in cafe.markdown
    assert 0 <= museum.share < 1 and museum.share == organisation(MUSEUM).share


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("# Tickets", "line 1: the first line"),
        ("% x | y\nA ticket", "line 2: a document"),
        ("% x | y\n# T\nIt costs 9.\nQ+ How much? | costs 8", "line 4: no line .* 'costs 8'"),
        ("% x | y\n# T\nIt costs 9.\nQ+ How much?", "line 4: no line"),
    ],
)
def test_what_is_no_organisation_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        organisation(text)


def test_a_passage_is_cut_with_its_answer_or_around_it():
    import random

    tickets, cafe = organisation(MUSEUM).documents
    first = chunks(tickets)[0]
    rest = without(first, "costs 9 euros")
    assert rest is not None and "9 euros" not in rest and "Children under six" in rest
    rng = random.Random(1)
    cut = {shortened(first, "costs 9 euros", rng) for _ in range(60)}
    assert len(cut) > 2 and all("costs 9 euros" in one for one in cut)
    table = without(chunks(cafe)[0], "Tuesday | tomato")
    assert table is not None and "Monday | leek" in table and "tomato" not in table
    assert without(first, "Danish and English") is not None  # whatever its marks


def test_pairs_have_the_answer_or_none_of_it():
    museum = organisation(MUSEUM)
    questions = asked(museum, words_alone)
    assert [bool(one.answering) for one in questions] == [True, True, False, True, False]
    made = [pair for seed in range(20) for pair in pairs(questions, seed)]
    assert pairs(questions, 3) == pairs(questions, 3)
    kinds = Counter(one.kind for one in made)
    assert set(kinds) == {"answered", "removed", "other", "missing"}
    assert kinds["answered"] == kinds["removed"] + kinds["other"] == 60 and kinds["missing"] == 40
    words = {one.question: one.words for one in questions}
    for one in made:
        if (own := words[one.question]) is not None:
            assert holds(one.passage, own) is one.is_answered


def test_the_texts_by_hand_say_what_they_are():
    known: Counter[str] = Counter()
    for of in organisations(TEXTS.glob("*.txt")):
        known[of.name] += 1
        assert len(of.documents) == 8
        for document in of.documents:
            held = [content(chunk) for chunk in chunks(document)]
            asked_both = [one.words is not None for one in document.questions]
            assert True in asked_both and False in asked_both
            for one in document.questions:
                assert one.words is None or any(holds(text, one.words) for text in held), one
    assert len(known) == len(list(TEXTS.glob("*.txt"))) > 60


def test_foreign_pairs_have_passages_of_others():
    other = MUSEUM.replace("Lorn Museum", "Dorn Museum")
    questions = [q for text in (MUSEUM, other) for q in asked(organisation(text), words_alone)]
    made = [pair for seed in range(20) for pair in foreign_pairs(questions, seed)]
    assert len(made) == 40 and {(one.kind, one.words) for one in made} == {("foreign", None)}
    assert foreign_pairs(asked(organisation(MUSEUM), words_alone), 1) == []


ARTICLE = {
    "title": "Lorn_Castle",
    "paragraphs": [
        {
            "context": "In Lorn the castle of King Haldor burned in 1734. It was built again by Ada Merk "
            "in 1761. Visitors came from Trond and Velby. The park is open.",
            "qas": [
                {"question": "When did the castle of King Haldor burn?", "answers": [{"text": "1734"}]},
                {"question": "Who built the castle in 1761?", "answers": [{"text": "Ada Merk"}]},
            ],
        },
        {
            "context": "The castle has a garden. King Haldor planted oaks there, and Ada Merk roses.",
            "qas": [{"question": "What did King Haldor plant?", "answers": [{"text": "oaks"}]}],
        },
    ],
}  # fmt: skip


def test_pairs_of_squad_hold_their_answer_or_ask_for_something_else(tmp_path, monkeypatch):
    file = tmp_path / "squad.json"
    file.write_text(json.dumps({"data": [ARTICLE]}))
    with pytest.raises(ValueError, match="not SQuAD"):
        squad_pairs(file, 1)
    monkeypatch.setattr(squad, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    made = [pair for seed in range(80) for pair in squad_pairs(file, seed)]
    assert Counter(one.kind for one in made).keys() == set(squad.KINDS)
    asked_of = {
        q["question"]: q["answers"][0]["text"] for p in ARTICLE["paragraphs"] for q in p["qas"]
    }
    for one in made:
        match one.kind:
            case "answered":
                assert one.words == asked_of[one.question] and one.words in one.passage
            case "removed" | "other":
                assert one.words is None and asked_of[one.question] not in one.passage
            case "swapped":
                assert one.words is None and one.question not in asked_of
