from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.forge.batches import bucketed
from tests.conftest import n_examples


@settings(max_examples=n_examples(80), deadline=None)
@given(st.lists(st.integers(1, 90), max_size=300), st.integers(16, 400), st.integers(0, 5))
def test_every_item_is_in_one_batch_that_is_not_too_large(lengths, batch_tokens, epoch):
    batches = bucketed(lengths, batch_tokens, seed=3, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batch_tokens
    assert batches == bucketed(lengths, batch_tokens, seed=3, epoch=epoch)


def test_epochs_differ_in_their_batches():
    lengths = list(range(1, 200))
    assert bucketed(lengths, 256, 1, 0) != bucketed(lengths, 256, 1, 1)
