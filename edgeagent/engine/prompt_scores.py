"""How probable a prompt's own tokens are, each after those before it: what scoring a text asks for."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from edgeagent.engine.logprobs import scored, spelled
from edgeagent.engine.runner import Runner
from edgeagent.types import TokenLogprob, TopLogprob


class PromptScores:
    """Those of one prompt. Engine thread only; `n_top` of the most probable tokens stand beside each.

    A prompt that is computed again, after its cells were wanted elsewhere, keeps what it has.
    """

    def __init__(self, n_top: int) -> None:
        self._n_top = n_top
        self._known: dict[int, tuple[float, list[TopLogprob]]] = {}
        self._is_told = False

    def take(
        self, first: int, logits: np.ndarray[Any, Any], prompt: array[int], runner: Runner
    ) -> None:
        """Logits after the tokens from `first` on: float32 [n_tokens, n_vocab]."""
        for number, row in enumerate(logits, first + 1):
            if number < len(prompt) and number not in self._known:
                self._known[number] = scored(row, prompt[number], self._n_top, runner)

    def tell(self, prompt: array[int], runner: Runner) -> tuple[TokenLogprob, ...]:
        """All tokens of the prompt, once. The first one has nothing to be probable after."""
        if self._is_told:
            return ()
        self._is_told = True
        none: tuple[None, list[TopLogprob]] = (None, [])
        return tuple(
            TokenLogprob(spelled(token, runner), *self._known.get(number, none))
            for number, token in enumerate(prompt)
        )
