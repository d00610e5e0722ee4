from __future__ import annotations

import shutil

import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE, SNIPS_INTENTS, check_files, load


def test_the_corpus_has_every_intent_of_the_three_domains(corpus):
    assert {domain: len(names) for domain, names in corpus.names.items()} == {
        "assistant": 150,
        "service": 77,
        "skills": 7,
    }
    # One name is in two domains, and out-of-scope is a class of its own.
    assert len(corpus.all_names) == 150 + 77 + 7 - 1 + 1
    assert corpus.all_names[-1] == OUT_OF_SCOPE


def test_what_is_kept_back_is_in_no_training_item_of_its_data_set(corpus):
    for domain in ("service", "skills"):
        kept_back = [i for i in corpus.validation if i.domain == domain]
        train = [i for i in corpus.train if i.domain == domain and i.intent != OUT_OF_SCOPE]
        assert not {id(i) for i in kept_back} & {id(i) for i in train}
        every = 10 if domain == "service" else 20
        assert len(kept_back) == pytest.approx(len(train) / (every - 1), rel=0.1)
    assert (
        sum(i.domain == "assistant" and i.intent != OUT_OF_SCOPE for i in corpus.validation) == 3000
    )
    assert sum(i.intent == OUT_OF_SCOPE for i in corpus.validation) == 100


def test_slots_stand_in_the_text_where_they_say(corpus):
    with_slots = [item for item in corpus.train if item.slots]
    assert {item.intent for item in with_slots} == set(SNIPS_INTENTS)
    for item in with_slots:
        for slot in item.slots:
            assert item.text[slot.start : slot.end] == slot.value


def test_a_missing_data_set_is_named_with_its_origin(tmp_path):
    with pytest.raises(ForgeFailed, match=r"clinc150.json is missing: it comes from CLINC150"):
        load(tmp_path)


def test_another_file_than_the_right_one_is_refused(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    changed = tmp_path / "data" / "banking77" / "train.csv"
    changed.chmod(0o644)
    with changed.open("a") as file:
        file.write("one more,card_arrival\n")
    with pytest.raises(ForgeFailed, match=r"train.csv has SHA-256 .* is expected"):
        check_files(tmp_path / "data")
