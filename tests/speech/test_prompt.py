"""What the model reads before a window never overflows, and no keyword is cut."""

from __future__ import annotations

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.prompt import PROMPT_TOKENS, Prompt


def tokens_of(text: str) -> list[int]:
    """A token for each word."""
    return [hash(word) % 10_000 for word in text.split()]


def test_keywords_precede_every_window_whole():
    options = SpeechOptions(keywords=("metformin", "amoxicillin"))
    prompt = Prompt(tokens_of, options)
    keywords = tokens_of(" metformin, amoxicillin.")
    assert prompt.tokens() == keywords
    prompt.add(list(range(1000)), temperature=0.0)
    found = prompt.tokens()
    assert found[:2] == keywords
    assert found[-1] == 999
    assert len(found) == PROMPT_TOKENS


def test_keywords_that_do_not_fit_are_refused_with_the_numbers():
    options = SpeechOptions(keywords=tuple(f"drug{n}" for n in range(300)))
    with pytest.raises(
        InvalidParameter, match="300 keywords have 300 tokens, at most 160"
    ) as refused:
        Prompt(tokens_of, options)
    assert refused.value.param == "keywords"


def test_the_prompt_gives_way_to_the_text_before():
    prompt = Prompt(tokens_of, SpeechOptions(prompt="a visit"))
    assert prompt.tokens() == tokens_of("a visit")
    prompt.add([1, 2, 3], temperature=0.0)
    assert prompt.tokens() == [1, 2, 3]


def test_the_prompt_stays_where_windows_do_not_see_each_other():
    prompt = Prompt(tokens_of, SpeechOptions(prompt="a visit", is_conditioned=False))
    prompt.add([1, 2, 3], temperature=0.0)
    assert prompt.tokens() == tokens_of("a visit")


def test_the_end_of_a_long_prompt_counts():
    text = " ".join(f"w{n}" for n in range(500))
    found = Prompt(tokens_of, SpeechOptions(prompt=text)).tokens()
    assert found == tokens_of(text)[-PROMPT_TOKENS:]


def test_an_improbable_text_is_no_example():
    prompt = Prompt(tokens_of, SpeechOptions())
    prompt.add([1, 2], temperature=0.0)
    prompt.add([3], temperature=0.8)
    assert prompt.tokens() == []
