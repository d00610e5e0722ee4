"""Numbers as people say them."""

from __future__ import annotations

import re

import pytest

from edgeagent.routing.home_assistant.normalized_words import Words, is_slip, stem
from edgeagent.routing.home_assistant.value_parser import PATTERNS, READERS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("half an hour", {"minutes": 30}),
        ("an hour and a half", {"hours": 1, "minutes": 30}),
        ("one and a half hours", {"hours": 1, "minutes": 30}),
        ("1 hour 30 minutes", {"hours": 1, "minutes": 30}),
        ("90 seconds", {"minutes": 1, "seconds": 30}),
        ("ten minutes and 30 seconds", {"minutes": 10, "seconds": 30}),
        ("a quarter of an hour", {"minutes": 15}),
        ("twenty-five minutes", {"minutes": 25}),
        ("two hours", {"hours": 2}),
        ("5min", {"minutes": 5}),
        ("a hundred and one minutes", None),
    ],
)
def test_a_duration(text, value):
    line = Words.of(text).line
    found = re.fullmatch(PATTERNS["duration"], line)
    assert (READERS["duration"](line) if found else None) == value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("percent", "50%", 50),
        ("percent", "fifty percent", 50),
        ("percent", "to half", 50),
        ("percent", "to one hundred percent", 100),
        ("percent", "at 35", 35),
        ("percent", "to 101 percent", None),
        ("percent", "35", None),
        ("degrees", "to 21.5 degrees", 21.5),
        ("degrees", "to twenty one point five", 21.5),
        ("degrees", "70°F", 70),
        ("degrees", "21 °C", 21),
        ("degrees", "to 900", None),
    ],
)
def test_a_percentage_or_a_temperature_within_its_bounds(kind, text, value):
    line = Words.of(text).line
    found = re.fullmatch(PATTERNS[kind], line)
    try:
        assert (READERS[kind](line) if found else None) == value
    except ValueError:
        assert value is None


def test_words_lose_case_articles_and_contractions_and_know_where_they_stood():
    words = Words.of("Don't turn the kitchen's LIGHT to twenty one!")
    assert words.line == "do not turn kitchens light to 21 "
    assert words.original(6, 7) == "twenty one"


def test_a_slip_of_the_finger_is_one_letter():
    assert all(
        map(is_slip, ("trun", "ligth", "kitchn", "lihgts"), ("turn", "light", "kitchen", "lights"))
    )
    assert not is_slip("bathroom", "bedroom")
    words = Words.of("trun on the kitchn light 2").corrected({"turn", "kitchen", "light"})
    assert words.line == "turn on kitchen light 2 "
    assert stem("batteries") == "battery" and stem("glass") == "glass"
