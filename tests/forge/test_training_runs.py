from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
import torch

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE, Corpus, Item
from edgeagent.forge.recipe import Recipe
from edgeagent.forge.training_runs import TrainingRuns

SHAPE = {"n_embd": 16, "n_layers": 1, "n_head": 2, "n_head_kv": 1, "n_ff": 16}


def recipe(name: str, **more: object) -> Recipe:
    plan = {"epochs": 1, "learning_rate": 1e-3, "batch_tokens": 512, "precision": "f32"}
    known = {"name": name, "n_tokens": 1024, "n_variants": 1, "shape": SHAPE, "plan": plan}
    return Recipe.model_validate(known | more)


@pytest.fixture(scope="module")
def wordy(small) -> Corpus:
    """The small corpus with 500 made-up words: a recipe asks for a vocabulary of at least 1024 tokens."""
    parts = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    random = Random(1)
    words = ["".join(random.choices(parts, k=3)) for _ in range(500)]
    more = (Item(f"{word} {word}", "assistant", OUT_OF_SCOPE) for word in words)
    return replace(small, train=(*small.train, *more))


@pytest.fixture
def runs(wordy, tmp_path) -> TrainingRuns:
    return TrainingRuns(tmp_path / "runs", wordy, tmp_path, is_quiet=True)


def test_a_run_can_begin_with_the_weights_of_another(runs):
    runs.train(recipe("first"), with_teachers=False)
    second = recipe("second", seed=9, start={"run": "first"})
    begun = runs._new_decoder(second, runs.vocabulary(1024)).state_dict()
    for name, weight in runs.weights_of("first").items():
        torch.testing.assert_close(begun[name], weight, rtol=0, atol=0)
    runs.train(second, with_teachers=False)
    assert not torch.equal(
        runs.weights_of("second")["token_embd.weight"], begun["token_embd.weight"]
    )


def test_it_must_be_there_and_have_the_same_shape(runs):
    with pytest.raises(ForgeFailed, match="no run 'first'"):
        runs.train(recipe("second", start={"run": "first"}), with_teachers=False)
    runs.train(recipe("first"), with_teachers=False)
    wider = recipe("wider", shape=SHAPE | {"n_ff": 32}, start={"run": "first"})
    with pytest.raises(ForgeFailed, match="another shape: give both"):
        runs.train(wider, with_teachers=False)


def test_it_must_have_been_trained_to_its_end(runs):
    longer = {"epochs": 2, "learning_rate": 1e-3, "batch_tokens": 512, "precision": "f32"}
    first = recipe("first", plan=longer)
    is_begun = runs.folder / "first" / "best.pt"
    runs.train(first, with_teachers=False, until=is_begun.exists)
    assert is_begun.exists()
    second = recipe("second", start={"run": "first"})
    with pytest.raises(ForgeFailed, match="no complete training"):
        runs.train(second, with_teachers=False)
    runs.train(first, with_teachers=False)
    runs.train(second, with_teachers=False)


def test_a_recipe_of_a_run_that_cannot_be_read_is_named(runs):
    folder = runs.folder / "first"
    folder.mkdir()
    (folder / "recipe.json").write_text('{"name": "fir')
    with pytest.raises(ForgeFailed, match=r"first/recipe.json cannot be read .*delete the folder"):
        runs.train(recipe("first"), with_teachers=False)


def test_a_run_that_was_begun_before_a_setting_came_goes_on(runs):
    runs.train(recipe("first"), with_teachers=False)
    path = runs.folder / "first" / "recipe.json"
    kept = json.loads(path.read_text())
    del kept["plan"]["average"]
    path.write_text(json.dumps(kept))
    runs.train(recipe("first"), with_teachers=False)
    with pytest.raises(ForgeFailed, match="a training by another recipe"):
        runs.train(recipe("first", seed=2), with_teachers=False)
