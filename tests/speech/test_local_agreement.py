"""Text that is given out is never taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.speech.local_agreement import Agreement, n_covered, plain, units_of


def test_words_are_final_once_two_hearings_agree():
    agreement = Agreement()
    assert agreement.add(" Good morning") == ""
    assert agreement.add(" Good morning, how or") == " Good morning,"
    assert agreement.add(" Good morning, how are you feeling") == " how"
    assert agreement.add(" Good morning. How are you feeling today?") == " are you feeling"
    assert agreement.finish(" Good morning! How are you feeling today?") == " today?"
    assert agreement.text == " Good morning, how are you feeling today?"


def test_a_later_hearing_that_differs_adds_only_what_follows():
    agreement = Agreement()
    agreement.add(" The patient has a rush")
    assert agreement.add(" The patient has a rush on") == " The patient has a rush"
    assert agreement.finish(" The patient has a rash on her arms.") == " on her arms."


def test_a_hearing_that_lost_words_adds_no_others_twice():
    agreement = Agreement()
    agreement.add(" one two three four")
    agreement.add(" one two three four")
    assert agreement.finish(" one two three") == ""
    assert agreement.finish(" one two three four five") == " five"


def test_no_text_finishes_nothing():
    agreement = Agreement()
    agreement.add(" yes")
    agreement.add(" yes")
    assert agreement.finish("") == ""
    assert agreement.text == " yes"


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (" Good morning!", [" Good", " morning!"]),
        ("no space", ["no", " space"]),
        ("今日は good", ["今", "日", "は", " good"]),
        ("   ", []),
        ("", []),
    ],
)
def test_text_is_cut_into_words_or_characters(text, units):
    assert units_of(text) == units


def test_words_are_compared_without_case_and_punctuation():
    assert plain(" Don't!") == "don't"
    assert plain(" ...") == ""


@pytest.mark.parametrize(
    ("told", "heard", "n"),
    [
        ("", "a", 0),
        ("a b", "a b c", 2),
        ("a b", "A x, B. c", 3),
        ("a b c", "a c d", 2),
        ("a", "", 0),
        ("a b", "x y", 2),
        ("no", "no no no", 1),
    ],
)
def test_how_much_of_a_hearing_was_told(told, heard, n):
    assert n_covered(told, heard) == n


WORDS = st.lists(st.sampled_from([" a", " b", " c", " d."]), max_size=6)


@given(st.lists(WORDS, max_size=6), WORDS)
def test_whatever_is_heard_text_only_grows(hearings, last):
    agreement = Agreement()
    text = ""
    for words in hearings:
        text += agreement.add("".join(words))
        assert agreement.text == text
    text += agreement.finish("".join(last))
    assert agreement.text == text


@given(WORDS)
def test_hearings_that_agree_lose_and_repeat_nothing(words):
    agreement = Agreement()
    text = "".join(words)
    assert agreement.add(text) + agreement.add(text) + agreement.finish(text) == text
