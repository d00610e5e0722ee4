"""A call told in words."""

from __future__ import annotations

import pytest

from edgeagent.serving.call_sentences import CallDescriber, arguments_of, sentence
from edgeagent.types.answer import CallDelta, CallText, TokenChunk


def test_the_pieces_of_a_call_become_one_sentence_and_the_call_itself():
    teller = CallDescriber()
    first = TokenChunk(0, "", calls=[CallDelta(0, "", "GetWeather")])
    piece = TokenChunk(0, "", calls=[CallDelta(0, '{"city":"rome"')])
    last = TokenChunk(0, "", "tool_calls", calls=[CallDelta(0, "}")])
    assert teller.told([first]) == teller.told([piece]) == []
    (told,) = teller.told([last])
    assert (told.text, told.finish, told.calls) == (
        'This asks for GetWeather, with city "rome".',
        "stop",
        [],
    )
    assert told.told == CallText("GetWeather", {"city": "rome"})


def test_answers_of_one_request_are_told_apart():
    teller = CallDescriber()
    chunks = [
        TokenChunk(0, "", "tool_calls", calls=[CallDelta(0, "{}", "timer")]),
        TokenChunk(1, "", "tool_calls", calls=[CallDelta(0, "{}", "alarm")]),
    ]
    assert [chunk.text for chunk in teller.told(chunks)] == [
        "This asks for timer.",
        "This asks for alarm.",
    ]


def test_text_and_errors_pass_unchanged():
    chunks = [TokenChunk(0, "Out of scope"), TokenChunk(0, "", "stop")]
    failed = [TokenChunk(0, "", "error", error=("engine_died", "gone"))]
    teller = CallDescriber()
    assert teller.told(chunks) == chunks
    assert teller.told(failed) == failed


def test_a_call_that_was_cut_off_keeps_its_reason_and_what_is_whole():
    teller = CallDescriber()
    cut = TokenChunk(0, "", "length", calls=[CallDelta(0, '{"city":"rome"', "GetWeather")])
    (told,) = teller.told([cut])
    assert (told.finish, told.told) == ("length", CallText("GetWeather", {"city": "rome"}))


@pytest.mark.parametrize(
    ("text", "arguments"),
    [("", {}), ('{"a":1', {"a": 1}), ('{"a', {}), ("[1]", {}), ('{"a":null}', {"a": None})],
)
def test_arguments_are_an_object_whatever_came(text, arguments):
    assert arguments_of(text) == arguments


def test_a_sentence_lists_what_is_filled():
    call = CallText("PlayMusic", {"music_item": "song", "artist": "Ma", "year": None, "n": 2})
    assert sentence(call) == 'This asks for PlayMusic, with music item "song", artist "Ma" and n 2.'
