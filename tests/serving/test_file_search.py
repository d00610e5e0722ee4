"""Which messages a search is for, and what a turn does where the documents tell nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest

from edgeagent.serving.knowledge.file_search import NOTHING_FOUND, Consultant, question_of
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
    """A judge that says the same of everything."""

    def __init__(self, value: float | None) -> None:
        self._value = value
        self.n_asked = 0

    async def answerability(self, question: str, found: Any) -> float | None:
        self.n_asked += 1
        return self._value


@pytest.mark.parametrize(
    ("said", "least", "evidence", "basis", "n_asked"),
    [
        (0.39, None, 0.9, "nothing", 1),
        (0.4, None, 0.3, "quotes", 1),
        (0.39, 0.3, 0.3, "quotes", 1),
        (0.59, None, 0.24, "nothing", 1),  # little evidence
        (0.6, None, 0.24, "quotes", 1),
        (0.65, 0.7, 0.24, "nothing", 1),
        (0.39, 0.0, 0.9, "quotes", 0),
        (0.9, 0.0, 0.1, "nothing", 0),
        (None, None, 0.9, "quotes", 1),
        (None, None, 0.1, "nothing", 1),
    ],
)
async def test_a_judge_decides_where_it_is_asked_else_evidence(
    said, least, evidence, basis, n_asked
):
    judge = Judgement(said)
    consultant = Consultant(
        cast("Any", OneFound(evidence)), cast("Any", None), KnowledgeSettings(least_answerability=0.4),
        cast("Any", judge),
    )  # fmt: skip
    tool = FileSearch(store_ids=["vs_1"], answers="quotes", least_answerability=least)
    found = await consultant.consult("owner", tool, QUESTION, shows_results=False, may_fix=True)
    assert found is not None and (found.basis, judge.n_asked) == (basis, n_asked)
    assert found.told().get("answerability") == (said if n_asked else None)
