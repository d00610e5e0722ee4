"""What becomes of a step that has run: cells are counted, tokens drawn, and their text is sent."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgeagent.engine.batching.chunk_buffer import ChunkBuffer
from edgeagent.engine.batching.kv_cache import KVCache
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.speculation import Speculation, agreement
from edgeagent.engine.batching.step_cost import StepLoad
from edgeagent.engine.batching.step_runner import Row, Runner
from edgeagent.engine.batching.time_slices import TimeSlice
from edgeagent.engine.output.decoder import Draw
from edgeagent.engine.output.output_parser import Pieces
from edgeagent.types.answer import TokenChunk

Work = list[tuple[Sequence, int]]  # the sequences of a step, each with the number of its tokens


class StepRun(NamedTuple):
    """What is known of a step that has run: `n_tokens` computed, of which `n_accepted` were drafted and
    drawn, and the `size` under which its threads are measured."""

    load: StepLoad
    n_tokens: int
    n_accepted: int
    size: int
    has_prompts: bool
    took_s: float


class EndAnswer(Protocol):
    """Ends an answer, which gives up its cells."""

    def __call__(
        self,
        seq: Sequence,
        now: float,
        *,
        finish: Any,
        pieces: Pieces,
        error: tuple[str, str] | None,
    ) -> None: ...


class StepOutcome:
    """Carries out what follows from a step. Engine thread only."""

    def __init__(
        self,
        kv: KVCache,
        runner: Runner,
        chunk_buffer: ChunkBuffer,
        speculation: Speculation,
        end: EndAnswer,
        clock: Callable[[], float],
    ) -> None:
        self._kv = kv
        self._runner = runner
        self._chunk_buffer = chunk_buffer
        self._speculation = speculation
        self._end = end
        self._time_slice = TimeSlice(clock=clock)

    def resume(self, unfinished: list[Sequence], now: float) -> None:
        """Begin the time slice of a step, and continue draws that an earlier one left unfinished."""
        self._time_slice.begin()
        for seq in unfinished:
            draw = seq.decoder.resume(self._time_slice)
            if draw is not None:
                self._deliver(seq, draw, now)

    def undo(self, work: Work) -> None:
        """Drop the cells of an aborted step. State that cannot be trimmed is computed again."""
        for seq, _ in work:
            assert seq.seq_id is not None
            if not self._runner.can_trim:
                seq.n_past = 0
                self._kv.cut(seq.seq_id, 0)
            self._runner.trim(seq.seq_id, seq.n_past)

    def advance(self, work: Work, rows: list[Row], logits: np.ndarray[Any, Any], now: float) -> int:
        """Count the cells of the step, and draw for each sequence whose tokens have all been computed.
        Returns how many drafted tokens were drawn."""
        end = n_accepted = 0
        for (seq, n), row in zip(work, rows, strict=True):
            assert seq.seq_id is not None
            self._kv.append(seq.seq_id, len(row.tokens))
            end += row.n_outputs
            if seq.scores is not None and row.n_outputs == n:
                seq.scores.take(seq.n_past, logits[end - n : end], self._runner)
            seq.n_past += n
            seq.ran_s = now
            if seq.n_pending == 0:
                if seq.first_token_s is None:
                    seq.first_token_s = now
                    self._chunk_buffer.hurry()
                draft = row.tokens[n:]
                n_accepted += self._draw(seq, draft, logits[end - len(draft) - 1 : end], now)
        return n_accepted

    def _draw(
        self, seq: Sequence, draft: array[int], logits: np.ndarray[Any, Any], now: float
    ) -> int:
        """Draw the next token of a sequence, and as long as it is the drafted one the token after it. Drops
        the cells of drafted tokens that were not drawn; returns how many were."""
        n_accepted = 0
        while True:
            draw = seq.decoder.next(logits[n_accepted], self._runner, self._time_slice)
            if draw is not None:
                self._deliver(seq, draw, now)
            if seq.seq_id is None or seq.decoder.is_drawing:
                break
            n = agreement(seq.tokens, seq.n_past, draft, n_accepted)
            n_accepted += n
            seq.n_past += n
            if n == 0 or seq.n_pending:
                break
        self._speculation.verified(seq, len(draft), n_accepted)
        if seq.seq_id is not None and n_accepted < len(draft):
            self._kv.cut(seq.seq_id, seq.n_past)
        return n_accepted

    def _deliver(self, seq: Sequence, draw: Draw, now: float) -> None:
        """Send the pieces of a draw, and end the answer if the draw does."""
        pieces, finish, error, texts = draw
        if finish is not None:
            self._end(seq, now, finish=finish, pieces=pieces, error=error)
        elif texts:
            for text in texts:
                self._chunk_buffer.put(seq.request.request_id, TokenChunk(seq.index, text))
        elif any(pieces):
            self._chunk_buffer.put(seq.request.request_id, pieces.chunk(seq.index))
