"""How often drafts were right."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.acceptance import GUESSES, Acceptance, chances, kind_of


def test_it_begins_with_what_is_known_of_others():
    assert Acceptance().rates() == pytest.approx(GUESSES)
    assert Acceptance().rates((0.1, 0.2, 0.3, 0.4)) == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_only_the_kind_of_match_that_was_tried_changes():
    found = Acceptance()
    found.add(3, is_hit=False)
    rates = found.rates()
    assert rates[kind_of(4)] < GUESSES[kind_of(4)]
    assert [rates[kind] for kind in (0, 2, 3)] == [GUESSES[kind] for kind in (0, 2, 3)]


def test_new_trials_outweigh_old_ones():
    found = Acceptance()
    for _ in range(200):
        found.add(2, is_hit=True)
    assert found.rates()[0] > 0.9
    for _ in range(60):
        found.add(2, is_hit=False)
    assert found.rates()[0] < 0.15
    for _ in range(60):
        found.add(2, is_hit=True)
    assert found.rates()[0] > 0.85


def test_each_token_needs_those_before_it_and_makes_the_match_longer():
    assert chances((0.5, 0.6, 0.7, 0.8), 2, 4) == pytest.approx(
        [0.5, 0.5 * 0.6, 0.5 * 0.6 * 0.6, 0.5 * 0.6 * 0.6 * 0.7]
    )


def test_tokens_that_are_hardly_ever_taken_are_left_out():
    assert chances((0.3, 0.1, 0.7, 0.8), 2, 9) == pytest.approx([0.3])
    assert chances((0.01, 1.0, 1.0, 1.0), 2, 9) == []
