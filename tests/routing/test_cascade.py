"""When a model is tried, and when its first tokens hand the request over."""

from __future__ import annotations

import pytest

from edgeagent.routing.cascade import Trial, agreement, needs_trial, should_escalate, trial_of
from edgeagent.routing.decision import Decision
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import TokenLogprob, TopLogprob
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt

SPEC = GenerateSpec(prompts=[Prompt(text="x")])
FORMED = GenerateSpec(prompts=[Prompt(text="x")], form=Form(kind="json_schema", text="{}"))
ON = RoutingSettings(cascade_tokens=8, cascade_min_margin=1.0)
ROUTED = Decision("small", "default", route="auto", larger=("large",))


def token(*logprobs: float) -> TokenLogprob:
    return TokenLogprob(b"x", logprobs[0], [TopLogprob(b"x", one) for one in logprobs])


@pytest.mark.parametrize(
    ("decision", "spec", "settings", "expected"),
    [
        (ROUTED, SPEC, ON, True),
        (ROUTED, SPEC, RoutingSettings(), False),
        (ROUTED, FORMED, ON, False),
        (Decision("small", "named"), SPEC, ON, False),
        (Decision("small", "default"), SPEC, ON, False),
        (Decision("large", "default", route="auto"), SPEC, ON, False),
        (Decision("small", "rule", route="auto", larger=("large",)), SPEC, ON, False),
        (Decision("small", "preferred", route="auto:fast", larger=("large",)), SPEC, ON, False),
        (Decision("small", "learned", route="auto", larger=("large",)), SPEC, ON, True),
        (Decision("small", "fallback", route="auto", larger=("large",)), SPEC, ON, True),
    ],
)
def test_a_model_is_tried_where_nobody_has_decided_for_it(decision, spec, settings, expected):
    assert needs_trial(decision, spec, settings) is expected


def test_the_mean_margin_counts_and_not_the_smallest():
    found = trial_of([token(-0.1, -3.1), token(-0.7, -0.8), token(-0.2)])
    assert found is not None and found.n_tokens == 2
    assert found.mean_margin == pytest.approx(1.55)
    assert str(found) == "mean margin 1.550 over 2 tokens"
    assert trial_of([]) is None and trial_of([token(-1.0)]) is None


def test_below_the_threshold_or_without_tokens_the_next_model_answers():
    assert should_escalate(Trial(8, 0.999), ON)
    assert not should_escalate(Trial(8, 1.0), ON)
    assert should_escalate(None, ON)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["one"], None),
        (["The sea", "the SEA!"], 1.0),
        (["the sea", "the land"], 1 / 3),
        (["a b", "a b", "c d"], 1 / 3),
        (["", ""], 1.0),
        (["", "a"], 0.0),
    ],
)
def test_drawn_answers_agree_as_far_as_they_have_the_same_words(texts, expected):
    assert agreement(texts) == (None if expected is None else pytest.approx(expected))


def test_a_model_that_says_something_else_each_time_hands_over_though_its_margins_are_wide():
    settings = RoutingSettings(cascade_tokens=8, cascade_samples=3, cascade_min_agreement=0.5)
    found = trial_of([token(-0.1, -5.0)], ["red sea", "blue lake", "old river"])
    assert found is not None and str(found).endswith("agreement 0.00")
    assert should_escalate(found, settings)
    assert not should_escalate(Trial(8, 4.9, 0.5), settings)
    assert not should_escalate(Trial(8, 4.9), settings)
