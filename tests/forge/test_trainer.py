from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeagent.errors import ForgeFailed
from edgeagent.forge.assistant_task import AssistantTask, LossWeights
from edgeagent.forge.decoder import Decoder
from edgeagent.forge.trainer import Trainer, TrainingPlan, rate_at


def trainer(pool, small, vocabulary, shape, folder, **plan):
    torch.manual_seed(5)
    decoder = Decoder(shape, dropout=0.1)
    task = AssistantTask(
        decoder, vocabulary, small, pool, weights=LossWeights(), batch_tokens=512, seed=1
    )
    options: dict[str, Any] = {"epochs": 2, "learning_rate": 3e-3, "precision": "f32"}
    return Trainer(decoder, task, TrainingPlan(**(options | plan)), folder, is_quiet=True)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(
    pool, small, vocabulary, shape, tmp_path, average
):
    whole = trainer(pool, small, vocabulary, shape, tmp_path / "whole", average=average)
    figures = whole.run()
    steps = 0

    def interrupt() -> bool:
        nonlocal steps
        steps += 1
        return steps > 5

    cut = trainer(pool, small, vocabulary, shape, tmp_path / "cut", average=average)
    cut.run(until=interrupt)
    assert cut._epoch == 0 or cut._batch > 0
    again = trainer(pool, small, vocabulary, shape, tmp_path / "cut", average=average)
    assert again.resume()
    assert 0 < again._step < whole.n_steps
    assert again.run() == figures
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_small_decoder_learns_a_few_intents(pool, small, vocabulary, shape, tmp_path):
    figures = trainer(pool, small, vocabulary, shape, tmp_path, epochs=8).run()
    # Chance is 0.2, 0.33 and 0.33.
    assert figures["assistant"] > 0.6
    assert figures["service"] > 0.7
    assert figures["skills"] > 0.8
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


def test_a_checkpoint_of_another_plan_is_refused(pool, small, vocabulary, shape, tmp_path):
    first = trainer(pool, small, vocabulary, shape, tmp_path)
    first.save()
    other = trainer(pool, small, vocabulary, shape, tmp_path, epochs=3)
    with pytest.raises(ForgeFailed, match="belongs to a training of"):
        other.resume()
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ForgeFailed, match="delete it to start again"):
        first.resume()


class Quadratic:
    """A task with one weight, whose scores are given."""

    def __init__(self, model: nn.Module, scores: list[float], loss: float = 1.0) -> None:
        self.model, self.scores, self.factor = model, scores, loss

    def batches(self, epoch: int) -> list[int]:
        return [0, 1]

    def loss(self, batch: int) -> tuple[Tensor, int]:
        return self.factor * self.model.weight.square().sum(), 1

    def score(self) -> dict[str, float]:
        return {"score": self.scores.pop(0)}


def test_the_mean_of_the_weights_is_what_is_judged_and_kept_and_the_last_ones_go_on(tmp_path):
    kept, gone_through = {}, {}
    for average in (0.0, 0.5):
        torch.manual_seed(3)
        model = nn.Linear(1, 1, bias=False)
        task = Quadratic(model, [0.1, 0.2, 0.3])
        seen = gone_through[average] = [model.weight.item()]
        plan = TrainingPlan(epochs=3, learning_rate=0.1, average=average, precision="f32")
        one = Trainer(model, task, plan, tmp_path / str(average), is_quiet=True)
        train_on = one._train_on

        def step(batch, train_on=train_on, seen=seen, model=model):
            done = train_on(batch)
            seen.append(model.weight.item())
            return done

        one._train_on = step
        one.run()
        kept[average] = torch.load(one.best, weights_only=True)["weight"].item()
    assert gone_through[0.5] == gone_through[0.0]
    mean = gone_through[0.0][0]
    for number, weight in enumerate(gone_through[0.0][1:], 1):
        stays = min(0.5, number / (number + 10))
        mean = stays * mean + (1 - stays) * weight
    assert kept[0.5] == pytest.approx(mean, rel=1e-5)
    assert kept[0.0] == gone_through[0.0][-1]
    assert kept[0.5] != kept[0.0]


def test_training_stops_early_and_keeps_the_best_weights(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    seen = []
    task = Quadratic(model, [0.1, 0.5, 0.4, 0.3, 0.9])
    plan = TrainingPlan(epochs=5, learning_rate=0.1, patience=2, precision="f32")
    one = Trainer(model, task, plan, tmp_path, is_quiet=True)
    evaluate = one._evaluate
    one._evaluate = lambda: (evaluate(), seen.append(model.weight.item()))
    figures = one.run()
    assert figures == {"score": 0.5}
    assert len(seen) == 4
    assert model.weight.item() == seen[1]


def test_a_loss_that_is_no_number_ends_with_a_way_out(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    task = Quadratic(model, [0.1], loss=float("nan"))
    plan = TrainingPlan(epochs=1, learning_rate=0.1, precision="f32")
    with pytest.raises(ForgeFailed, match="lower learning_rate"):
        Trainer(model, task, plan, tmp_path, is_quiet=True).run()


@given(st.integers(1, 5000), st.floats(0, 0.5))
def test_the_rate_rises_then_falls_to_a_tenth(n_steps, warmup):
    rates = [rate_at(step, n_steps, warmup) for step in range(n_steps)]
    top = rates.index(max(rates))
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert min(rates) > 0 and max(rates) <= 1
