"""What counts as right, and where the thresholds stand."""

from __future__ import annotations

import torch

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.forge.datasets import DOMAINS, OUT_OF_SCOPE
from edgeagent.forge.intent_classes import IntentClasses
from edgeagent.forge.intent_metrics import intent_figures, thresholds


def certain(items, classes, strength):
    """Logits that say the label with some strength, and nothing else."""
    labels, _ = classes.labels(items)
    return strength * torch.nn.functional.one_hot(labels, classes.n).float()


def test_who_is_always_right_and_sure_recognises_everything_at_no_cost(small):
    classes = IntentClasses.of(small)
    items = small.validation
    figures = intent_figures(certain(items, classes, 20.0), items, classes)
    assert all(figures[domain] == 1.0 for domain in DOMAINS)
    assert figures["oos_recall"] == 1.0
    assert figures["oos_cost"] == 0.0
    found = thresholds(certain(items, classes, 20.0), items, classes)
    assert set(found) == {*DOMAINS, ALL}
    assert all(threshold.value > 0.99 for threshold in found.values())


def test_who_says_the_same_of_all_recognises_nothing(small):
    classes = IntentClasses.of(small)
    items = small.validation
    figures = intent_figures(torch.zeros(len(items), classes.n), items, classes)
    assert figures["assistant"] < 0.5
    assert figures["oos_recall"] == 0.0


def test_a_threshold_loses_no_more_than_it_may(small):
    torch.manual_seed(1)
    classes = IntentClasses.of(small)
    items = small.validation
    logits = certain(items, classes, 3.0) + torch.randn(len(items), classes.n)
    for most in (0.0, 0.05, 0.2):
        for domain, threshold in thresholds(logits, items, classes, most).items():
            assert threshold.cost <= most, domain
    strict = thresholds(logits, items, classes, 0.0)
    loose = thresholds(logits, items, classes, 0.2)
    assert all(loose[d].value >= strict[d].value for d in strict)
    assert all(loose[d].recall >= strict[d].recall for d in strict)


def test_in_scope_is_judged_with_out_of_scope_left_aside(small):
    """The best intent counts also where out-of-scope is more probable: whether it is believed is the
    threshold's business."""
    classes = IntentClasses.of(small)
    items = [item for item in small.validation if item.intent != OUT_OF_SCOPE]
    logits = certain(items, classes, 5.0)
    logits[:, classes.names.index(OUT_OF_SCOPE)] = 9.0
    figures = intent_figures(logits, items, classes)
    assert all(figures[domain] == 1.0 for domain in DOMAINS)
