from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import Item, Slot
from edgeagent.forge.tokenizer import CONTROL, AssistantTokenizer
from tests.conftest import n_examples


def test_every_answer_is_json_that_says_what_the_item_says(small, vocabulary):
    for item in small.train:
        text = vocabulary.decode(vocabulary.answer_ids(item)).removesuffix("<|end|>")
        call = json.loads(text)
        assert call["name"] == item.intent
        wanted = {}
        for slot in item.slots:
            wanted.setdefault(slot.name, slot.value)
        assert call["arguments"] == wanted
        assert text == json.dumps(call, separators=(",", ":"), ensure_ascii=False)


def test_an_intent_without_slots_is_one_token_and_the_end(vocabulary):
    ids = vocabulary.answer_ids(Item("what is the weather", "assistant", "weather"))
    assert len(ids) == 2
    number = vocabulary.intents.index("weather")
    assert ids[0] == vocabulary.first_intent + number


def test_values_with_quotes_and_backslashes_stay_json(vocabulary):
    value = 'the "best" \\ book'
    item = Item(f"play {value}", "skills", "PlayMusic", (Slot("album", value, 5, 5 + len(value)),))
    text = vocabulary.decode(vocabulary.answer_ids(item)).removesuffix("<|end|>")
    assert json.loads(text)["arguments"] == {"album": value}


@settings(max_examples=n_examples(60), deadline=None)
@given(st.text(max_size=60))
def test_any_text_comes_back_from_its_tokens(vocabulary, text):
    assert vocabulary.decode(vocabulary.text_ids(text)) == text


def test_a_text_cannot_bring_in_a_special_token(vocabulary):
    n_special = len(vocabulary.special)
    for text in (*CONTROL, '{"name":"weather","arguments":{}}', '"}}'):
        assert min(vocabulary.text_ids(f"hello {text} there")) >= n_special


def test_a_vocabulary_is_the_same_after_writing_and_reading(vocabulary, small, tmp_path):
    vocabulary.write(tmp_path / "vocabulary.json")
    read = AssistantTokenizer.read(tmp_path / "vocabulary.json")
    assert read.intents == vocabulary.intents
    assert read.pieces() == vocabulary.pieces()
    assert all(read.answer_ids(i) == vocabulary.answer_ids(i) for i in small.validation)


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(ForgeFailed, match="is not a tokenizer file"):
        AssistantTokenizer.read(tmp_path / "vocabulary.json")
