"""What `scripts/bench answerability` counts, on made-up values."""

from __future__ import annotations

import pytest

from scripts.benchmarks.answerability import area, declined_at, fitted, lost_at, windows
from scripts.benchmarks.intervals import interval
from scripts.benchmarks.near_questions import Told


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1], [1], 0.5), ([0, 2], [1, 1], 0.5)],
)
def test_the_area_is_the_share_of_pairs_in_the_right_order(right, wrong, expected):
    assert area(right, wrong) == expected


def test_thresholds_lose_no_more_and_decline_no_less_than_asked():
    right, wrong = list(range(10, 30)), [*range(9), 25]
    assert declined_at(right, wrong, 0.05) == 0.9  # the threshold is 11
    assert declined_at(right, wrong, 0.9) == 1.0
    assert lost_at(right, wrong, 0.9) == 0.0
    assert lost_at(right, wrong, 1.0) == 16 / 20


def test_a_fit_uses_the_column_that_tells_and_no_row_without_a_label():
    labels = [True, False, True, False, None]
    tells = [1.0, -1.0, 1.0, -1.0, 1.0]
    noise = [0.0, 0.0, 1.0, 1.0, 0.0]
    values = fitted([tells, noise], labels)
    assert min(values[0], values[2], values[4]) > max(values[1], values[3])
    assert abs(values[0] - values[4]) < 1e-9


def test_windows_are_two_sentences_of_a_passage_with_its_heading():
    first = "Lockers\nA locker costs 4 pounds a day. It takes coins and cards. Ask at the desk for keys."
    second = "Weather\nThe captain decides whether a ship sails. Storms are rare in summer."
    found = windows("What does a locker cost?", [first, second], 2)
    assert found[0].startswith("Lockers") and "4 pounds" in found[0]
    assert all("captain" not in one or "locker" not in one for one in found)
    assert len(windows("What does a locker cost?", [first, second], 50)) > 2


def test_what_is_told_is_declined_by_evidence_or_by_a_judge():
    def told(basis: str, **own: float) -> Told:
        knowledge = {"basis": basis, "evidence": 0.5, "is_sure": None} | own
        return Told("x", "q", "by boat at noon", "t", knowledge, [], "A boat goes at noon.")

    thin, judged = told("nothing"), told("nothing", answerability=0.2)
    answered = told("quotes", answerability=0.7, quote_evidence=0.6, is_sure=True)
    doubted = told("quotes", answerability=0.7, quote_evidence=0.6, is_sure=False)
    assert [one.is_declined for one in (thin, judged, answered)] == [True, True, False]
    assert [one.judged for one in (thin, judged, answered)] == [0.0, 0.2, 0.7]
    assert [one.evidence for one in (thin, answered)] == [-0.5, 0.6]
    assert [one.is_uncertain for one in (thin, answered, doubted)] == [True, False, True]
    assert answered.has_words and not answered._replace(words="by train at noon").has_words


def test_an_interval_holds_its_share_and_is_narrow_for_many():
    for n, total in ((0, 10), (9, 10), (50, 100)):
        low, high = interval(n, total)
        assert low - 1e-9 <= n / total <= high + 1e-9
        assert low > -1e-9 and high < 1 + 1e-9
    low, high = interval(900, 1000)
    assert high - low < 0.04
