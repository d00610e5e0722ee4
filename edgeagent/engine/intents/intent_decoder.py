"""Decodes an answer that is a choice among intents: the intent with the first draw, then its slots.

The most probable token that may come is taken; sampling has no effect on what a text asks for.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.batching.time_slices import TimeSlice
from edgeagent.engine.intents.intent_scoring import IntentChoice
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.decoder import Decoder, Draw
from edgeagent.engine.output.output_parser import Pieces
from edgeagent.types.answer import CallDelta
from edgeagent.types.intents import Confidence, IntentQuestion
from edgeagent.types.sampling import Sampling


class IntentDecoder(Decoder):
    """The pieces of one call. Its tokens are names of intents and slots, and no text to go on from."""

    can_be_continued = False

    def __init__(
        self, tokens: array[int], n_prompt: int, max_new: int, choice: IntentChoice, n_vocab: int
    ) -> None:
        super().__init__(
            tokens, n_prompt, max_new, Sampler(Sampling(temperature=0), n_vocab, [], 0)
        )
        self._choice = choice

    def next(
        self, logits: np.ndarray[Any, Any], runner: Runner, time_slice: TimeSlice
    ) -> Draw | None:
        draw = self._intent(logits) if self._choice.chosen is None else self._slot(logits)
        if draw.finish is None and self.n_generated >= self.max_new:
            draw = draw._replace(finish="length")
        if draw.finish is not None:
            pieces = draw.pieces._replace(confidence=self._choice.confidence)
            draw = draw._replace(pieces=pieces)
        return draw

    def _intent(self, logits: np.ndarray[Any, Any]) -> Draw:
        """The intent, or that there is none."""
        choice = self._choice
        question = choice.offer.intent_question
        if (draw := settled(question)) is not None:
            return draw
        number, choice.confidence = choice.offer.weigh(logits)
        if not choice.confidence.is_abstained:
            self.tokens.append(int(choice.offer.ids[number]))
            choice.chosen = question.candidates[number]
        return chosen(question, number, choice.confidence)

    def _slot(self, logits: np.ndarray[Any, Any]) -> Draw:
        """A token of a value, or the turn to the next slot or the end; a slot is sent when it is whole."""
        token, piece = self._choice.next_token(logits)
        self.tokens.append(token)
        if piece is not None:
            self._choice.go_on(piece)
            return Draw()
        arguments = self._choice.turn(token)
        pieces = Pieces(calls=(CallDelta(0, arguments),)) if arguments else Pieces()
        return Draw(pieces, "tool_calls" if self._choice.slot is None else None)


def settled(question: IntentQuestion) -> Draw | None:
    """The answer where nothing is to be chosen."""
    if question.reply is not None:
        return Draw(Pieces(question.reply), "stop")
    if question.calls:
        calls = (CallDelta(n, c.arguments, c.name) for n, c in enumerate(question.calls))
        return Draw(Pieces(calls=tuple(calls)), "tool_calls")
    return None


def chosen(question: IntentQuestion, number: int, confidence: Confidence) -> Draw:
    """The call of candidate `number`, or its beginning where slots follow; no call where none is sure."""
    if confidence.is_abstained:
        return Draw(Pieces(question.otherwise), "stop")
    candidate = question.candidates[number]
    if (call := candidate.call) is not None:
        return Draw(Pieces(calls=(CallDelta(0, call.arguments, call.name),)), "tool_calls")
    if not candidate.slots:
        return Draw(Pieces(calls=(CallDelta(0, "{}", candidate.name),)), "tool_calls")
    return Draw(Pieces(calls=(CallDelta(0, "", candidate.name),)))
