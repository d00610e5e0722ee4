from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.intent_classes import IntentClasses, calibrate, distilled


def test_only_the_names_of_a_domain_and_out_of_scope_are_on_offer(small):
    classes = IntentClasses.of(small)
    labels, domains = classes.labels(small.validation)
    narrow = classes.narrowed(torch.zeros(len(labels), classes.n), domains)
    offered = narrow == 0
    assert offered[torch.arange(len(labels)), labels].all()
    assert offered[:, classes.names.index(OUT_OF_SCOPE)].all()
    for row, item in enumerate(small.validation):
        names = {classes.names[i] for i in offered[row].nonzero().flatten()}
        assert names == {*small.names[item.domain], OUT_OF_SCOPE}


def test_without_a_teacher_the_loss_is_cross_entropy():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    plain = distilled(logits, labels, None, weight=0.7, temperature=2)
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels))


def test_a_teacher_of_the_same_opinion_leaves_nothing_to_learn():
    logits = torch.randn(6, 5, requires_grad=True)
    taught = torch.log_softmax(logits.detach(), -1)
    loss = distilled(logits, torch.zeros(6, dtype=torch.long), taught, weight=1.0, temperature=3)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_items_that_no_teacher_was_asked_about_learn_from_their_label():
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    taught = torch.log_softmax(torch.randn(4, 5), -1)
    is_taught = torch.tensor([True, False, False, True])
    loss = distilled(logits, labels, taught, is_taught, weight=1.0, temperature=1)
    soft = F.kl_div(F.log_softmax(logits, -1), taught.exp(), reduction="none").sum(-1)
    hard = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(loss, (soft[0] + hard[1] + hard[2] + soft[3]) / 4)


def test_a_threshold_costs_no_more_than_it_may():
    torch.manual_seed(0)
    inside, outside = torch.rand(1000) * 0.7 + 0.3, torch.rand(200) * 0.6
    probability = torch.cat([inside, outside])
    is_outside = torch.cat([torch.zeros(1000), torch.ones(200)]).bool()
    is_right = torch.rand(1200) < 0.95
    for most in (0.0, 0.01, 0.05):
        found = calibrate(probability, is_right, is_outside, most=most)
        lost = (is_right & ~is_outside & (probability < found.value)).sum() / 1000
        assert found.cost == pytest.approx(float(lost)) and found.cost <= most
        recalled = (is_outside & (probability < found.value)).sum() / 200
        assert found.recall == pytest.approx(float(recalled))
    assert calibrate(probability, is_right, is_outside, most=0.05).recall > found.recall - 1e-9
