"""The loss of a batch, whatever it is padded to."""

from __future__ import annotations

import pytest
import torch

from edgeagent.forge import assistant_task
from edgeagent.forge.assistant_task import AssistantTask, LossWeights
from edgeagent.forge.decoder import Decoder


def loss_and_slopes(task: AssistantTask, batch: object) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss, _ = task.loss(batch)
    parameters = [p for p in task.decoder.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss, [slope for slope in slopes if slope is not None]


def test_padding_to_shapes_that_recur_changes_neither_loss_nor_gradients(
    pool, small, vocabulary, shape, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(3)
    decoder = Decoder(shape).eval()
    weights = LossWeights(slots=0.5, prompt=0.1, any_token=0.1)
    task = AssistantTask(
        decoder, vocabulary, small, pool, weights=weights, batch_tokens=512, seed=1
    )
    for batch in task.batches(0)[:4]:
        padded_loss, padded_slopes = loss_and_slopes(task, batch)
        with monkeypatch.context() as patch:
            patch.setattr(assistant_task, "WIDTH_STEP", 1)
            patch.setattr(assistant_task, "ROWS_STEP", 1)
            loss, slopes = loss_and_slopes(task, batch)
        torch.testing.assert_close(padded_loss, loss)
        torch.testing.assert_close(padded_slopes, slopes, rtol=1e-3, atol=1e-5)


def test_the_shapes_of_a_training_recur(pool, small, vocabulary, shape):
    task = AssistantTask(
        Decoder(shape), vocabulary, small, pool, weights=LossWeights(), batch_tokens=512, seed=1
    )
    widths = set()
    for epoch in range(3):
        for number, indices in task.batches(epoch):
            encoded = [task._encoded[pool.number(i, number)][i] for i in indices]
            made = assistant_task.padded(encoded)
            assert int(made.n_all.max()) <= made.tokens.shape[1]
            widths.add(made.tokens.shape[1] - 1)
    assert len(widths) > 1 and all(width % assistant_task.WIDTH_STEP == 0 for width in widths)
