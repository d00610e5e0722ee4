from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.recipe import RECIPES, read_recipe

GOOD = """
name = "tiny"
[shape]
n_embd = 64
n_layers = 2
n_head = 4
n_head_kv = 2
n_ff = 128
[plan]
epochs = 1
learning_rate = 1e-3
"""


def test_every_recipe_that_comes_with_edgeagent_is_sound():
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    assert {"sentence-teacher", "edge-assistant-m", "edge-assistant-s"} <= set(names)
    for name in names:
        recipe = read_recipe(Path(name))
        assert recipe.name == name
        for teacher in recipe.teachers:
            assert teacher.run in names
        if recipe.start is not None and recipe.start.run is not None:
            before = read_recipe(Path(recipe.start.run))
            assert (before.shape, before.n_tokens) == (recipe.shape, recipe.n_tokens)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("n_layers = 2", "n_layers = 0"), r"shape.n_layers: .* greater than or equal to 1"),
        (("n_head = 4", "n_head = 5"), "n_embd 64 must be n_head 5 times an even number"),
        (("epochs = 1", "epoch = 1"), r"plan.epochs: Field required"),
        (('name = "tiny"', 'name = "../tiny"'), "name: String should match pattern"),
        (("[plan]", "[plan"), "is not TOML"),
        (("[shape]", "[start]\nblocks = [0]\n[shape]"), "start.blocks names 1 blocks, shape.n_layers is 2"),
        (("[shape]", '[start]\nblocks = [0, 1]\nrun = "a"\n[shape]'), "leave out either run or blocks"),
        (("epochs = 1", "epochs = 1\naverage = 1"), r"plan.average: .* less than 1"),
        (("learning_rate = 1e-3", "learning_rate = 1e-3\n[loss]\nteacher = 2"), r"loss.teacher: "),
    ],
)  # fmt: skip
def test_a_bad_recipe_is_refused_with_the_place(change, said, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(ForgeFailed, match=said):
        read_recipe(path)


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(ForgeFailed, match="or one of edge-assistant-m"):
        read_recipe(Path("no-such-recipe"))
