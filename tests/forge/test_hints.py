"""A teacher's vectors of the texts: kept as directions, learnt by the way, and in no exported file."""

from __future__ import annotations

import torch

from edgeagent.forge.assistant_task import AssistantTask, LossWeights
from edgeagent.forge.decoder import Decoder


def test_vectors_are_directions_of_what_was_asked_about(pool):
    torch.manual_seed(1)
    found = [torch.randn(len(pool.asked), 12) + 5 for _ in pool.variants]
    pool.take_vectors(found)
    everything = list(range(len(pool.items)))
    lengths = pool.vectors_of(everything, 0).norm(dim=-1)
    asked = torch.zeros(len(everything), dtype=torch.bool)
    asked[pool.asked] = True
    torch.testing.assert_close(lengths[asked], torch.ones(len(pool.asked)), rtol=0, atol=2e-3)
    assert not lengths[~asked].any()
    # The middle is taken out: what all texts have in common tells nothing of one.
    assert pool.vectors_of(pool.asked, 0).mean(0).norm() < 0.3


def test_a_decoder_learns_to_say_them(pool, small, vocabulary, shape):
    torch.manual_seed(2)
    decoder = Decoder(shape)
    n_intents = len(vocabulary.intents)
    classes = torch.tensor([vocabulary.intents.index(pool.items[i].intent) for i in pool.asked])
    pool.take_vectors([torch.nn.functional.one_hot(classes, n_intents).float()] * 2)
    pool.is_taught[pool.asked] = True
    decoder.take_hints(n_intents)
    weights = LossWeights(slots=0, any_token=0, hint=5.0)
    task = AssistantTask(
        decoder, vocabulary, small, pool, weights=weights, batch_tokens=512, seed=1
    )
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)

    @torch.no_grad()
    def likeness() -> float:
        indices = pool.asked[::7]
        made = [task._encoded[0][i].prompt for i in indices]
        said = [decoder.hint(decoder(torch.tensor([ids]))[0, -1]) for ids in made]
        return float(torch.cosine_similarity(torch.stack(said), pool.vectors_of(indices, 0)).mean())

    before = likeness()
    for batch in task.batches(0) + task.batches(1):
        loss, _ = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert likeness() > before + 0.3


def test_a_decoder_that_took_hints_has_nothing_else_than_one_that_did_not(shape):
    plain, hinted = Decoder(shape), Decoder(shape)
    hinted.take_hints(12)
    more = set(hinted.state_dict()) - set(plain.state_dict())
    assert more == {"hint.weight", "hint.bias"}
