"""Which messages a search is for, and what a turn does where the documents tell nothing."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from edgeagent.serving.knowledge.file_search import (
    NOT_SURE,
    NOTHING_FOUND,
    Consultant,
    Consultation,
    question_of,
)
from edgeagent.serving.knowledge.file_search_tool import FileSearch
from edgeagent.serving.knowledge.wishes import Passage
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.types.prompt import Prompt

QUESTION = Prompt(messages=[{"role": "user", "content": "Who painted it?"}])


class NothingFound:
    """A retrieval without documents."""

    async def same_question(self, owner: str, stores: list[str], text: str) -> list[Any]:
        return []

    async def search(self, owner: str, wish: Any) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("fault", "may_fix", "text", "handover"),
    [
        (None, True, None, "router"),
        ("Model 'gone' is not installed.", True, NOTHING_FOUND, None),
        ("Model 'gone' is not installed.", False, None, None),
    ],
)
async def test_a_question_is_handed_over_only_to_a_model_that_can_be_asked(
    fault, may_fix, text, handover
):
    settings = KnowledgeSettings(thin_evidence_model="gone")
    none = cast("Any", None)
    consultant = Consultant(
        cast("Any", NothingFound()), none, settings, cast("Any", Judgement(None))
    )
    found = await consultant.consult(
        "owner", FileSearch(store_ids=["vs_1"], on_thin_evidence="router"), QUESTION,
        shows_results=False, may_fix=may_fix, why_not=lambda model: fault,
    )  # fmt: skip
    assert found is not None and (found.text, found.handover) == (text, handover)
    assert found.told().get("handover_fault") == fault


@pytest.mark.parametrize(
    ("last", "is_joined"),
    [
        ("And on Sundays?", True),
        ("How much is it?", True),
        ("What about dogs?", True),
        ("Sundays?", True),
        ("What does a motorcycle cost?", False),
        ("May I bring petrol in a can?", False),
        ("When does the last boat to Skerry leave on Sundays and holidays?", False),
    ],
)
def test_a_question_that_refers_to_the_one_before_is_searched_with_it(
    last: str, is_joined: bool
) -> None:
    before = "When does the ferry leave?"
    assert question_of([before, last]) == (f"{before}\n{last}" if is_joined else last)


def test_of_a_stored_question_only_its_answer_is_quoted() -> None:
    place: dict[str, Any] = {
        "chunk": 1,
        "store_id": "vs_1",
        "file_id": "file-1",
        "name": "a.csv",
        "attributes": {},
    }
    pair = Passage(**place, headings="FAQ", text="May I?", answer="Yes.", page=None, evidence=0.5)
    plain = Passage(**place, headings="Dogs", text="They may.", answer=None, page=1, evidence=0.5)
    assert (pair.told, pair.about) == ("Yes.", "FAQ\nMay I?")
    assert (plain.told, plain.about) == ("They may.", "Dogs")


class OneFound(NothingFound):
    """A retrieval with one passage."""

    def __init__(self, evidence: float) -> None:
        self.evidence = evidence

    async def search(self, owner: str, wish: Any) -> list[Any]:
        return [
            Passage(
                chunk=1, store_id="vs_1", file_id="file-1", name="a.md", attributes={}, headings="Dogs",
                text="Dogs may travel on deck.", answer=None, page=None, evidence=self.evidence,
            )
        ]  # fmt: skip

    async def near(self, owner: str, stores: list[str], text: str, texts: Any) -> dict[str, float]:
        return {}


class Judgement:
    """A judge that says the same of all passages, and of sentences; None: it cannot be asked."""

    def __init__(self, value: float | None, of_sentences: float | None = None) -> None:
        self._value = value
        self._of_sentences = of_sentences
        self.asked: list[list[str]] = []

    async def scores(self, question: str, texts: list[str]) -> list[float] | None:
        self.asked.append(texts)
        value = self._value if len(self.asked) == 1 else self._of_sentences
        return None if value is None else [value] * len(texts)


@pytest.mark.parametrize(
    ("said", "of_sentences", "least", "evidence", "basis", "told"),
    [
        (0.5, 0.29, None, 0.5, "nothing", 0.395),
        (0.5, 0.3, None, 0.5, "quotes", 0.4),
        (0.5, 0.1, 0.3, 0.5, "quotes", 0.3),
        (0.6, 0.7, 0.7, 0.5, "nothing", 0.65),
        # Evidence counts a little.
        (0.5, 0.29, None, 0.9, "quotes", 0.475),
        (0.5, 0.3, None, 0.4, "nothing", 0.38),
        # The judge fails between passages and sentences: its word on the best passage counts.
        (0.39, None, None, 0.5, "nothing", 0.39),
        (0.4, None, None, 0.5, "quotes", 0.4),
        # It is not asked, or cannot be: evidence decides.
        (0.39, 0.1, 0.0, 0.9, "quotes", None),
        (0.9, 0.9, 0.0, 0.1, "nothing", None),
        (None, None, None, 0.9, "quotes", None),
        (None, None, None, 0.1, "nothing", None),
    ],
)
async def test_a_judge_decides_where_it_is_asked_else_evidence(
    said, of_sentences, least, evidence, basis, told
):
    judge = Judgement(said, of_sentences)
    tool = FileSearch(store_ids=["vs_1"], answers="quotes", least_answerability=least)
    found = await consulted(OneFound(evidence), judge, tool, least_answerability=0.4)
    assert (found.basis, bool(judge.asked)) == (basis, least != 0)
    assert found.told().get("answerability") == (told and pytest.approx(told))


async def consulted(
    retrieval: NothingFound, judge: Judgement, tool: FileSearch, **settings: float
) -> Consultation:
    consultant = Consultant(
        cast("Any", retrieval), cast("Any", None), KnowledgeSettings(**settings), cast("Any", judge)
    )  # fmt: skip
    found = await consultant.consult("owner", tool, QUESTION, shows_results=False, may_fix=True)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("said", "own", "told", "is_sure"),
    [
        (0.9, {}, {"answerability": 0.8}, True),
        (0.5, {}, {"answerability": 0.6}, False),
        (0.5, {"sure_answerability": 0.6}, {"answerability": 0.6}, True),
        (0.9, {"sure_evidence": 0.9}, {"answerability": 0.8}, True),
        (None, {}, {"answerability": 0.7}, True),
        # It is not asked: by the words, of which none is the question's.
        (0.9, {"least_answerability": 0.0}, {"quote_evidence": 0.0}, False),
        (0.9, {"least_answerability": 0.0, "sure_evidence": 0.0}, {"quote_evidence": 0.0}, True),
    ],
)
async def test_quotes_that_may_not_answer_are_told_as_uncertain(said, own, told, is_sure):
    judge = Judgement(0.7, said)
    tool = FileSearch(store_ids=["vs_1"], answers="quotes", **own)
    found = await consulted(OneFound(0.5), judge, tool, sure_answerability=0.7, sure_evidence=0.5)
    n_asked = 0 if tool.least_answerability == 0 else 2
    assert judge.asked == [["Dogs\nDogs may travel on deck."]] * n_asked
    named = ("answerability", "quote_evidence")
    assert {k: v for k, v in found.told().items() if k in named} == told
    assert found.told()["is_sure"] is is_sure
    assert found.text == ("" if is_sure else f"{NOT_SURE} ") + "Dogs may travel on deck."


class TwoFound(OneFound):
    """The first of two passages has the question's words."""

    async def search(self, owner: str, wish: Any) -> list[Any]:
        (one,) = await super().search(owner, wish)
        other = msgspec.structs.replace(one, headings="Cats", text="Cats travel in a basket.")
        return [one, other]


class Reading(Judgement):
    """A judge that finds the answer where a word is."""

    def __init__(self, word: str) -> None:
        super().__init__(None)
        self._word = word

    async def scores(self, question: str, texts: list[str]) -> list[float] | None:
        return [0.9 if self._word in text else 0.1 for text in texts]


async def test_what_answers_as_a_judge_says_is_read_and_quoted_first():
    tool = FileSearch(store_ids=["vs_1"], answers="quotes")
    found = await consulted(TwoFound(0.5), Reading("basket"), tool)
    assert [passage.headings for passage in found.passages] == ["Cats", "Dogs"]
    assert found.text == "Cats travel in a basket." and found.told()["answerability"] == 0.9
    tool = msgspec.structs.replace(tool, reranks=False)
    found = await consulted(TwoFound(0.5), Reading("basket"), tool)
    assert [passage.headings for passage in found.passages] == ["Dogs", "Cats"]
    assert found.text == "Cats travel in a basket."


class Pair(OneFound):
    """A stored answer of a word, and a passage with a sentence."""

    async def search(self, owner: str, wish: Any) -> list[Any]:
        (one,) = await super().search(owner, wish)
        stored = msgspec.structs.replace(one, headings="", text="Are dogs free?", answer="Yes.")
        return [one, msgspec.structs.replace(stored, name="faq.csv")]


async def test_a_short_stored_answer_is_told_as_the_judge_says():
    tool = FileSearch(store_ids=["vs_1"], answers="quotes")
    found = await consulted(Pair(0.9), Reading("free"), tool)
    assert found.text == "Yes." and found.told()["is_sure"] is True
    assert [note["filename"] for note in found.annotations("Yes.")] == ["faq.csv"]


class Apart(OneFound):
    """Two documents with a sentence each, of which the first has no mark at its end."""

    async def search(self, owner: str, wish: Any) -> list[Any]:
        (one,) = await super().search(owner, wish)
        fares = msgspec.structs.replace(one, text="Skerry | adult single | 9.50 pounds")
        half = msgspec.structs.replace(one, name="b.md", text="children under five pay nothing.")
        return [fares, half]


async def test_each_sentence_of_a_quote_cites_the_passage_that_it_is_of():
    tool = FileSearch(store_ids=["vs_1"], answers="quotes", sure_answerability=1.0)
    found = await consulted(Apart(0.9), Judgement(0.8, 0.8), tool)
    first, second = "Skerry | adult single | 9.50 pounds", "children under five pay nothing."
    assert found.text == f"{NOT_SURE} {first} {second}"
    notes = [(note["index"], note["filename"]) for note in found.annotations(found.text)]
    start = len(NOT_SURE) + 1
    assert notes == [(start + len(first), "a.md"), (start + len(first) + 1 + len(second), "b.md")]
    assert found.told()["unsupported"] == []
