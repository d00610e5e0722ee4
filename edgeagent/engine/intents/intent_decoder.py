"""One draw of an answer that is a choice among intents: the intent at once, then its slots.

The most probable token that may come is taken; sampling has no say in what a text asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeagent.engine.batching.runner import Runner
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.intents.intent_scoring import Choice
from edgeagent.engine.output.output_parser import Said
from edgeagent.engine.structured.structured_decoder import Drawn
from edgeagent.types.answer import CallDelta


def choose(seq: Sequence, logits: np.ndarray[Any, Any], runner: Runner) -> Drawn:
    """The next piece of the call, from logits (float32 [n_vocab])."""
    assert seq.choice is not None
    drawn = (_first if seq.choice.chosen is None else _slot)(seq, seq.choice, logits, runner)
    if drawn.finish is None and seq.n_generated >= seq.max_new:
        drawn = drawn._replace(finish="length")
    if drawn.finish is not None:
        said = drawn.said._replace(confidence=seq.choice.confidence)
        drawn = drawn._replace(said=said)
    return drawn


def _first(seq: Sequence, choice: Choice, logits: np.ndarray[Any, Any], runner: Runner) -> Drawn:
    """The intent, or that there is none."""
    intent_question = choice.offer.intent_question
    if intent_question.reply is not None:
        return Drawn(Said(intent_question.reply), "stop")
    if intent_question.calls:
        calls = (CallDelta(n, c.arguments, c.name) for n, c in enumerate(intent_question.calls))
        return Drawn(Said(calls=tuple(calls)), "tool_calls")
    number, choice.confidence = choice.offer.weigh(logits)
    if choice.confidence.is_abstained:
        return Drawn(Said(intent_question.otherwise), "stop")
    seq.tokens.append(int(choice.offer.ids[number]))
    choice.chosen = intent_question.candidates[number]
    if (call := choice.chosen.call) is not None:
        return Drawn(Said(calls=(CallDelta(0, call.arguments, call.name),)), "tool_calls")
    if not choice.chosen.slots:
        return Drawn(Said(calls=(CallDelta(0, "{}", choice.chosen.name),)), "tool_calls")
    return Drawn(Said(calls=(CallDelta(0, "", choice.chosen.name),)))


def _slot(seq: Sequence, choice: Choice, logits: np.ndarray[Any, Any], runner: Runner) -> Drawn:
    """A token of a value, or the turn to the next slot or the end; a slot is told when it is whole."""
    token, piece = choice.next_token(logits)
    seq.tokens.append(token)
    if piece is not None:
        choice.go_on(piece)
        return Drawn()
    told = choice.turn(token)
    said = Said(calls=(CallDelta(0, told),)) if told else Said()
    return Drawn(said, "tool_calls" if choice.slot is None else None)
