"""Draws the tokens of one answer: what all kinds of decoders share.

plain        text and nothing else (`plain_decoder`)
structured   text that a grammar holds to a form, or that is parsed (`structured/structured_decoder`)
intent       a call that is chosen among intents (`intents/intent_decoder`)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import Any, ClassVar, NamedTuple

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.batching.time_slices import TimeSlice
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.output_parser import NOTHING, Pieces
from edgeagent.types.answer import FinishReason, SchemaNote


class Draw(NamedTuple):
    """The new pieces of an answer, and how it ends if it does. `texts`: those of its tokens, where
    it is text of several and nothing else."""

    pieces: Pieces = NOTHING
    finish: FinishReason | None = None
    error: tuple[str, str] | None = None
    texts: tuple[str, ...] = ()


class Decoder(ABC):
    """Draws the tokens of one answer. Made by intake, then used by the engine thread only; `close()` may
    be called twice.

    `tokens` are those of the prompt, `n_prompt` of them, and of the answer, which may have `max_new`. An
    answer may begin with tokens that it must begin with: they are among `tokens` from the start.
    """

    # Whether the client may continue the answer by its tokens in a later request.
    can_be_continued: ClassVar[bool] = True

    def __init__(self, tokens: array[int], n_prompt: int, max_new: int, sampler: Sampler) -> None:
        self.tokens = tokens
        self.n_prompt = n_prompt
        self.max_new = max_new
        self._sampler = sampler

    @abstractmethod
    def next(
        self, logits: np.ndarray[Any, Any], runner: Runner, time_slice: TimeSlice
    ) -> Draw | None:
        """Draw from the logits after the last token (float32 [n_vocab], changed in place).

        Appends the new tokens. None: there is nothing to send, because the token added no text yet, or
        because the draw takes longer than the step has time for (`is_drawing`).
        """

    @property
    def is_drawing(self) -> bool:
        """Whether a draw is unfinished, which `resume` continues."""
        return False

    def resume(self, time_slice: TimeSlice) -> Draw | None:
        """Continue an unfinished draw. As `next`."""
        raise AssertionError("this decoder leaves no draw unfinished")

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer."""
        return None

    @property
    def n_reasoning(self) -> int:
        """Tokens of the answer that were a reasoning section."""
        return 0

    @property
    def notes(self) -> list[SchemaNote]:
        """What the schemas ask for and the answer is not held to."""
        return []

    def close(self) -> None:
        self._sampler.close()
