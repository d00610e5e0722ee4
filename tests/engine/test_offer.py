"""The choice among intents as plain arithmetic: which is best, how sure, and which tokens may follow."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeagent.engine.offer import Choice, Offer, unescaped
from edgeagent.intents import CALL_TEXT, Candidate, Choosing, Slot, intent_text, slot_text

N_VOCAB = 32
# Tokens: 0..2 intents, 3 out-of-scope, 4, 5 first slots, 6, 7 later slots, 8 and 9 ends, 10 on values.
SLOTS = [Slot("a"), Slot("b")]


def offer(
    *, threshold: float = 0.5, may_abstain: bool = True, slots=SLOTS, n_value: int = 3
) -> Offer:
    candidates = [Candidate("x"), Candidate("y"), Candidate("z", True, slots)]
    choosing = Choosing(
        text="", candidates=candidates, out_of_scope="oos", threshold=threshold,
        may_abstain=may_abstain, otherwise="none",
    )  # fmt: skip
    return Offer(
        choosing, np.arange(4), {"a": 4, "b": 5}, {"a": 6, "b": 7}, 8, 9, np.arange(10, N_VOCAB), n_value
    )  # fmt: skip


def logits(**values: float) -> np.ndarray:
    """All the same but for some, by the number of their token: t3=2.0."""
    out = np.zeros(N_VOCAB, np.float32)
    for name, value in values.items():
        out[int(name[1:])] = value
    return out


def shares(*values: float) -> np.ndarray:
    """Logits of which the four on offer have these probabilities, and all else is far above."""
    out = np.full(N_VOCAB, 50, np.float32)
    out[:4] = np.log(values)
    return out


@pytest.mark.parametrize(
    ("probabilities", "best", "probability", "margin", "is_abstained"),
    [
        ((0.7, 0.1, 0.1, 0.1), "x", 0.7, 0.6, False),
        ((0.1, 0.3, 0.2, 0.4), "y", 0.3, -0.1, True),
        ((0.1, 0.5, 0.0001, 0.3999), "y", 0.5, 0.1001, False),
        ((0.25, 0.26, 0.24, 0.25), "y", 0.26, 0.01, True),
    ],
    ids=["sure", "out of scope", "at the threshold", "unsure"],
)
def test_the_best_intent_is_believed_from_the_threshold_on(
    probabilities, best, probability, margin, is_abstained
):
    _, sure = offer(threshold=0.4999).weigh(shares(*probabilities))
    assert (sure.intent, sure.is_abstained) == (best, is_abstained)
    assert sure.probability == pytest.approx(probability, abs=1e-5)
    assert sure.margin == pytest.approx(margin, abs=1e-5)


def test_a_call_that_must_be_is_believed_at_any_probability():
    number, sure = offer(may_abstain=False).weigh(shares(0.01, 0.02, 0.03, 0.94))
    assert (number, sure.intent, sure.is_abstained) == (2, "z", False)


def test_the_rule_is_that_of_the_forge():
    """What is calibrated there is what abstains here."""
    torch = pytest.importorskip("torch")
    from edgeagent.forge.classes import calibrate

    rows = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32) * 2
    found = torch.softmax(torch.from_numpy(rows), -1)[:, :-1].max(-1)
    is_outside = torch.arange(200) % 5 == 0
    threshold = calibrate(found.values, found.indices == 0, is_outside, most=0.1)
    chosen = offer(threshold=threshold.value)
    full = np.full((200, N_VOCAB), 9, np.float32)
    full[:, :4] = rows
    said = [chosen.weigh(row)[1].is_abstained for row in full]
    right = [chosen.weigh(row)[1].intent == "x" for row in full]
    outside = is_outside.tolist()
    lost = sum(a and r and not o for a, r, o in zip(said, right, outside, strict=True))
    # The threshold is the probability of one item, which falls to either side by the last bit.
    assert lost / 160 == pytest.approx(threshold.cost, abs=1.01 / 160)
    recall = sum(a and o for a, o in zip(said, outside, strict=True)) / 40
    assert recall == pytest.approx(threshold.recall, abs=1.01 / 40)


def chosen(**options: object) -> Choice:
    made = offer(**options)
    return Choice(made, chosen=made.choosing.candidates[2])


def test_a_call_begins_with_a_slot_or_ends():
    assert chosen().next_token(logits(t12=9, t8=2, t4=1)) == (8, None, True)
    assert chosen().next_token(logits(t12=9, t9=8, t5=1)) == (5, "b", False)


def test_a_value_has_one_token_at_least_and_no_more_than_the_text():
    choice = chosen()
    choice.slot = "a"
    assert choice.next_token(logits(t9=9, t7=8, t12=1)) == (12, None, False)
    choice.value = [12]
    assert choice.next_token(logits(t9=9, t7=8, t12=1)) == (9, None, True)
    assert choice.next_token(logits(t12=9)) == (12, None, False)
    choice.value = [12, 12, 12]
    assert choice.next_token(logits(t12=9, t7=2, t9=1)) == (7, "b", False)


def test_no_slot_comes_twice():
    choice = chosen()
    choice.slot, choice.value, choice.filled = "b", [12], ["a"]
    assert choice.next_token(logits(t6=9, t7=9, t9=1)) == (9, None, True)


def test_a_required_slot_comes_before_the_end():
    choice = chosen(slots=[Slot("a"), Slot("b", "required")])
    assert choice.next_token(logits(t8=9, t4=2, t5=1)) == (4, "a", False)
    choice.slot, choice.value = "a", [12]
    assert choice.next_token(logits(t9=9, t7=1)) == (7, "b", False)


@pytest.mark.parametrize(
    ("filled", "arguments"),
    [
        ([], {"b": None}),
        ([("a", b'say \\"hi\\"')], {"a": 'say "hi"', "b": None}),
        ([("a", b"x"), ("b", b"y")], {"a": "x", "b": "y"}),
    ],
    ids=["nothing", "one", "both"],
)
def test_the_arguments_are_json_and_whole(filled, arguments):
    choice = chosen(slots=[Slot("a"), Slot("b", "nullable")])
    told = ""
    for name, value in filled:
        choice.slot = name
        told += choice.finished_value(value)
    assert json.loads(told + choice.ending()) == arguments


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (b"caf\xc3\xa9", "caf\u00e9"),
        (b'a\\"b', 'a"b'),
        (b'a"b', 'a"b'),
        (b"a\\", "a\\"),
        (b"\xc3", "\ufffd"),
        (b"tab\there", "tab\there"),
    ],
    ids=["letters", "escaped", "bare quote", "half an escape", "half a letter", "tab"],
)
def test_a_value_is_text_whatever_the_model_wrote(pieces, text):
    assert unescaped(pieces) == text
    assert json.loads(json.dumps(unescaped(pieces))) == text


def test_every_text_of_a_call_is_recognised_and_ordinary_ones_are_not():
    calls = [intent_text("x", True), intent_text("x", False), slot_text("a", is_first=True)]
    calls += [slot_text("a", is_first=False), "}}", '"}}']
    assert all(CALL_TEXT.fullmatch(text) for text in calls)
    assert not any(CALL_TEXT.fullmatch(text) for text in ('"', "}", '":"', ' "a"', "name", '{"'))
