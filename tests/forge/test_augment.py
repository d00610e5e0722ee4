from __future__ import annotations

import numpy as np

from edgeagent.forge.augment import Augmenter, WordNeighbours, corpus_words


def test_variant_zero_is_the_item_and_others_are_always_the_same(small):
    one, other = (Augmenter(small.train, seed=7) for _ in range(2))
    changed = 0
    for index, item in enumerate(small.train):
        assert one.variant(item, index, 0) is item
        assert one.variant(item, index, 3) == other.variant(item, index, 3)
        changed += one.variant(item, index, 3).text != item.text
    assert changed > len(small.train) / 2


def test_variants_keep_intent_and_domain_and_their_slots_stand_in_them(small):
    augmenter = Augmenter(small.train, seed=1)
    for number in range(1, 6):
        for index, item in enumerate(small.train):
            variant = augmenter.variant(item, index, number)
            assert (variant.intent, variant.domain) == (item.intent, item.domain)
            assert variant.text.strip()
            assert [slot.name for slot in variant.slots] == [
                slot.name for slot in sorted(item.slots, key=lambda slot: slot.start)
            ]
            for slot in variant.slots:
                assert variant.text[slot.start : slot.end] == slot.value


def test_neighbours_are_the_words_with_like_vectors():
    words = ["card", "cards", "rain", "snow"]
    vectors = np.array([[1, 0.1], [1, 0.2], [0.1, 1], [0.2, 1]], np.float32)
    near = WordNeighbours(words, vectors, n=1)
    import random

    assert near.pick("card", random.Random(0)) == "cards"
    assert near.pick("Snow", random.Random(0)) == "rain"
    assert near.pick("unknown", random.Random(0)) == "unknown"


def test_words_of_a_corpus_come_up_often_enough(small):
    words = corpus_words(small.train, n_min=5)
    assert "weather" in words
    text = " ".join(item.text.lower() for item in small.train).split()
    assert all(text.count(word) >= 5 for word in words)
