"""Log-probabilities of the tokens of a prompt, each given the tokens before it."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.output.logprobs import scored, spelled
from edgeagent.types.answer import TokenLogprob, TopLogprob


class PromptScores:
    """The scores of one prompt, for all answers to it, each with the `n_top` most probable tokens. Engine
    thread only.

    They are computed once, with the first answer, whose cells the others share. After a preemption only the
    missing ones are computed.
    """

    def __init__(self, prompt: array[int], n_top: int) -> None:
        self._prompt = prompt
        self._n_top = n_top
        self._known: dict[int, tuple[float, list[TopLogprob]]] = {}
        self._told: set[int] = set()

    @property
    def is_whole(self) -> bool:
        return len(self._known) >= len(self._prompt) - 1

    def take(self, first: int, logits: np.ndarray[Any, Any], runner: Runner) -> None:
        """Logits after the tokens from `first` on: float32 [n_tokens, n_vocab]."""
        for number, row in enumerate(logits, first + 1):
            if number < len(self._prompt) and number not in self._known:
                self._known[number] = scored(row, self._prompt[number], self._n_top, runner)

    def tell(self, index: int, runner: Runner) -> tuple[TokenLogprob, ...]:
        """All tokens of the prompt, once for each answer. The first token has no log-probability."""
        if index in self._told:
            return ()
        self._told.add(index)
        none: tuple[None, list[TopLogprob]] = (None, [])
        return tuple(
            TokenLogprob(spelled(token, runner), *self._known.get(number, none))
            for number, token in enumerate(self._prompt)
        )
