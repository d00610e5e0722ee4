"""Decodes an answer that is text and nothing else."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.batching.time_slices import TimeSlice
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.decoder import Decoder, Draw
from edgeagent.engine.output.output_parser import Pieces
from edgeagent.engine.output.text_stream import TextStream


class PlainDecoder(Decoder):
    """One token a draw. The answer ends at a stop string, at `max_new` tokens, or, without `ignore_eos`, at
    an end token."""

    def __init__(
        self,
        tokens: array[int],
        n_prompt: int,
        max_new: int,
        sampler: Sampler,
        stop: list[str],
        *,
        ignore_eos: bool = False,
    ) -> None:
        super().__init__(tokens, n_prompt, max_new, sampler)
        self._text = TextStream(stop)
        self._ignores_eos = ignore_eos

    def next(
        self, logits: np.ndarray[Any, Any], runner: Runner, time_slice: TimeSlice
    ) -> Draw | None:
        token = self._sampler.pick(logits, runner.candidates)
        if token in runner.end_tokens and not self._ignores_eos:
            return Draw(Pieces(self._text.finish()), "stop")
        self.tokens.append(token)
        text = self._text.push(runner.piece(token))
        if self._text.is_stopped:
            return Draw(Pieces(text), "stop")
        if self.n_generated >= self.max_new:
            return Draw(Pieces(text + self._text.finish()), "length")
        return Draw(Pieces(text)) if text else None

    @property
    def stopped_by(self) -> str | None:
        return self._text.stopped_by
