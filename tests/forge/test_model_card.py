"""The card of a model says what was measured, of it and of those it is compared with."""

from __future__ import annotations

from edgeagent.forge.evaluate import EvaluationResult
from edgeagent.forge.intent_classes import Threshold
from edgeagent.forge.model_card import TrainingSummary, card
from edgeagent.forge.parity import Parity
from edgeagent.forge.recipe import RECIPES, read_recipe


def test_a_card_has_the_figures_of_both_files_and_leaves_out_what_a_teacher_never_learnt(tmp_path):
    path = tmp_path / "edge-assistant-s.Q8_0.gguf"
    path.write_bytes(bytes(1_500_000))
    figures = {"assistant": 0.9, "service": 0.8, "skills": 0.7}
    mine = TrainingSummary(
        read_recipe(RECIPES / "edge-assistant-s.toml"), 5_999_872, figures, 7, 600.0
    )
    teacher = read_recipe(RECIPES / "sentence-teacher.toml")
    plain = EvaluationResult(0.91, 0.81, 0.71, 0.6, 0.005, 0.3, 0.88, 0.5)
    shipped = EvaluationResult(
        0.905, 0.8, 0.7, 0.59, 0.005, 0.3, 0.87, 0.5, {"service": Threshold(0.25, 0.004, 0.9)}
    )
    text = card(
        mine, path, "Q8_0", plain, shipped, Parity(50, 200, 0.0071, 50, 50),
        [TrainingSummary(teacher, 0, figures | {"skills": 0.1}, 30, 60.0)], "a processor, 1 thread",
    )  # fmt: skip
    assert "| CLINC150: accuracy of 150 intents | 91.0% | 90.5% |" in text
    assert "| service | 0.250 | 0.4% | 90.0% |" in text
    assert "| SNIPS: accuracy of 7 intents | 70.0% |  |" in text
    assert "1.5 MB" in text and "10 minutes of steps\non a processor, 1 thread" in text
    assert "taught by sentence-teacher" in text and "CC BY 3.0" in text
    assert "It began with" not in text


def test_a_card_tells_of_the_training_that_its_own_went_on_from(tmp_path):
    path = tmp_path / "edge-assistant-m.Q8_0.gguf"
    path.write_bytes(bytes(1_500_000))
    first = TrainingSummary(
        read_recipe(RECIPES / "edge-assistant-m-first.toml"), 17_000_000, {}, 10, 4200.0
    )
    second = TrainingSummary(
        read_recipe(RECIPES / "edge-assistant-m.toml"), 17_000_000, {}, 7, 1800.0, first
    )
    figures = EvaluationResult(0.9, 0.8, 0.7, 0.6, 0.005, 0.3, 0.88, 0.5)
    text = card(
        second, path, "Q8_0", figures, figures, Parity(50, 200, 0.0071, 50, 50), [], "a processor"
    )
    assert "7 epochs over 8 variants" in text
    assert "sentence-teacher and edge-assistant-m-first: 30 minutes of steps" in text
    assert (
        "It began with the weights of edge-assistant-m-first, 10 epochs over 4 variants of each text, taught "
        "by sentence-teacher: 70 minutes of steps."
    ) in text
    assert "its blocks 0, 1, 2, 3." in text
