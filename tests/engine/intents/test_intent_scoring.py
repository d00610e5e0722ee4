"""The choice among intents as plain arithmetic: which is best, how sure, and which tokens may follow."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeagent.engine.intents.intent_scoring import IntentChoice, IntentOffer
from edgeagent.types.intents import (
    CALL_TEXT,
    Candidate,
    IntentQuestion,
    Slot,
    intent_text,
    slot_text,
)

N_VOCAB = 32
# Tokens: 0..2 intents, 3 out-of-scope, 4, 5 first slots, 6, 7 later slots, 8 and 9 ends, 10 on values.
SLOTS = [Slot("a"), Slot("b")]
WORDS = (b"go", b"to r", b"r", b"o", b"om", b"ome", b" ", b" now", b"now", b"w", b"rome")
PIECES = {piece: 10 + number for number, piece in enumerate(WORDS)}


def offer(
    *, text: str = "", threshold: float = 0.5, may_abstain: bool = True, slots=SLOTS
) -> IntentOffer:
    candidates = [Candidate("x"), Candidate("y"), Candidate("z", True, slots)]
    intent_question = IntentQuestion(
        text=text, candidates=candidates, out_of_scope="oos", threshold=threshold,
        may_abstain=may_abstain, otherwise="none",
    )  # fmt: skip
    return IntentOffer(
        intent_question, np.arange(4), {"a": 4, "b": 5}, {"a": 6, "b": 7}, 8, 9, PIECES
    )


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
    from edgeagent.forge.intent_classes import calibrate

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


def chosen(text: str = "go to rome now", **options: object) -> IntentChoice:
    made = offer(text=text, **options)
    return IntentChoice(made, chosen=made.intent_question.candidates[2])


def filling(slot: str, value: bytes = b"", **options: object) -> IntentChoice:
    """One that is in a slot and has this value."""
    choice = chosen(**options)
    choice.turn({"a": 4, "b": 5}[slot])
    choice.go_on(value)
    return choice


def allowed(choice: IntentChoice) -> set[int]:
    """The tokens that may follow, however improbable they are."""
    found = set()
    for token in range(N_VOCAB):
        row = np.full(N_VOCAB, -1.0, np.float32)
        row[token] = 1
        if choice.next_token(row)[0] == token:
            found.add(token)
    return found


def test_a_call_begins_with_a_slot_or_ends():
    assert allowed(chosen()) == {4, 5, 8}
    assert chosen().next_token(logits(t20=9, t8=2, t4=1)) == (8, None)


def test_a_value_begins_with_a_word_of_the_text():
    choice = filling("a")
    assert allowed(choice) == {PIECES[piece] for piece in (b"go", b"to r", b"r", b"rome", b"now")}
    assert choice.next_token(logits(t9=9, t20=2)) == (PIECES[b"rome"], b"rome")


def test_a_value_goes_on_as_the_text_does_and_ends_with_a_word():
    assert allowed(filling("a", b"r")) == {PIECES[b"o"], PIECES[b"om"], PIECES[b"ome"]}
    assert allowed(filling("a", b"rome")) == {PIECES[b" "], PIECES[b" now"], 7, 9}
    assert allowed(filling("a", b"rome ")) == {PIECES[b"now"]}


def test_a_word_that_comes_twice_goes_on_in_either_way():
    assert allowed(filling("a", b"rome", text="rome now rome")) >= {PIECES[b" now"], 9}


def test_a_text_without_words_has_empty_values():
    assert allowed(filling("a", text="  ")) == {7, 9}


def test_no_slot_comes_twice():
    choice = filling("a", b"rome")
    choice.turn(7)
    choice.go_on(b"now")
    assert allowed(choice) == {9}


def test_a_required_slot_comes_before_the_end():
    required = [Slot("a"), Slot("b", "required")]
    assert allowed(chosen(slots=required)) == {4, 5}
    assert allowed(filling("a", b"now", slots=required)) == {7}
    assert allowed(filling("b", b"now", slots=required)) == {6, 9}


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ([], {"b": None}),
        ([(4, b'say "hi"')], {"a": 'say "hi"', "b": None}),
        ([(4, b"caf\xc3\xa9"), (7, b"a\\b")], {"a": "caf\u00e9", "b": "a\\b"}),
        ([(5, b"\xc3")], {"b": "\ufffd"}),
    ],
    ids=["nothing", "quotes", "both", "half a letter"],
)
def test_the_arguments_are_json_and_whole(values, arguments):
    choice = chosen(slots=[Slot("a"), Slot("b", "nullable")])
    told = ""
    for token, value in values:
        told += choice.turn(token)
        choice.value = value
    assert json.loads(told + choice.turn(9 if values else 8)) == arguments
    assert choice.slot is None


def test_every_text_of_a_call_is_recognised_and_ordinary_ones_are_not():
    calls = [intent_text("x", True), intent_text("x", False), slot_text("a", is_first=True)]
    calls += [slot_text("a", is_first=False), "}}", '"}}']
    assert all(CALL_TEXT.fullmatch(text) for text in calls)
    assert not any(CALL_TEXT.fullmatch(text) for text in ('"', "}", '":"', ' "a"', "name", '{"'))
