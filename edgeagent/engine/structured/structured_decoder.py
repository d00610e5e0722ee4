"""Decodes an answer that a grammar holds to a form, or that is parsed into reasoning, text and calls.

Forced tokens are appended as they are and computed together in the next step, as a small prefill,
instead of being drawn one by one: "jump-forward". They count as generated.
Source: Zheng et al. 2023, SGLang, arXiv:2312.07104, section 4.

A search for the shortest end of an answer goes on a little in each step; until it is over the answer has no
next token.

Where a grammar is to take over later, tokens are drawn freely until then and cost no mask.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from edgeagent.engine.batching.step_runner import Runner
from edgeagent.engine.batching.time_slices import Sliced, TimeSlice
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.decoder import Decoder, Draw
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.output.output_parser import OutputParser, Pieces, Takeover
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.output.text_stream import TextStream
from edgeagent.engine.structured.byte_grammar import LAST_TRY
from edgeagent.engine.structured.constraint import Constraint
from edgeagent.engine.structured.json_completion import JsonCompletion
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.types.answer import SchemaNote

CUT = SchemaNote(
    None, "#", "max_tokens", "the tokens ran out within a call: what was open is closed, check its arguments"
)  # fmt: skip


class StructuredDecoder(Decoder):
    """Draws one answer's tokens; a draw may append several, and may take several steps.

    A `constraint` holds the answer to its grammar from the first token on, or, by `takeover`, from where the
    `parser` says so. With `ending` the answer is closed before its tokens run out. Without a `parser` all of
    the answer is text. `logprobs` and `scores` (of the prompt) are there where the client wants them; the
    latter are sent with answer `index`.
    """

    def __init__(
        self,
        tokens: array[int],
        n_prompt: int,
        max_new: int,
        sampler: Sampler,
        stop: list[str],
        *,
        index: int = 0,
        ignore_eos: bool = False,
        constraint: Constraint | None = None,
        takeover: Takeover = "never",
        ending: JsonCompletion | None = None,
        parser: OutputParser | None = None,
        logprobs: Logprobs | None = None,
        scores: PromptScores | None = None,
    ) -> None:
        # What an answer must begin with is prefilled with its prompt.
        is_active = takeover == "at once"
        forced = constraint.opening if constraint is not None and is_active else []
        for token in forced[:max_new]:
            sampler.accept(token)
        super().__init__(tokens + array("i", forced[:max_new]), n_prompt, max_new, sampler)
        self._text = TextStream(stop)
        self._index = index
        self._ignores_eos = ignore_eos
        # The constraint in force, and one that takes over later.
        self._constraint = constraint if is_active else None
        self._later = constraint if not is_active else None
        # The answer does not end before the constraint takes over.
        self._must_form = takeover == "after reasoning"
        self._ending = ending
        # Tokens that the grammar has accepted and for which `max_new` left no room.
        self._unsaid = forced[max_new:]
        self._parser = parser
        self._logprobs = logprobs
        self._scores = scores
        self._n_read = 0  # tokens of the answer that were turned into pieces
        self._sent: list[str] = []  # the text of those pieces
        self._texts: list[str] = []  # of the tokens that were read since the last draw
        self._drawing: Sliced[Draw] | None = None

    # --- what the engine sees

    def next(
        self, logits: np.ndarray[Any, Any], runner: Runner, time_slice: TimeSlice
    ) -> Draw | None:
        if self._drawing is None:  # else it was preempted within a draw
            self._drawing = self._draw(logits, runner)
        return self.resume(time_slice)

    @property
    def is_drawing(self) -> bool:
        return self._drawing is not None

    def resume(self, time_slice: TimeSlice) -> Draw | None:
        assert self._drawing is not None
        draw: Draw | None = time_slice.go_on(self._drawing)
        if draw is not None:
            self._drawing = None
        return draw

    @property
    def stopped_by(self) -> str | None:
        source = self._parser if self._parser is not None else self._text
        return source.stopped_by

    @property
    def n_reasoning(self) -> int:
        return self._parser.n_reasoning if self._parser is not None else 0

    @property
    def notes(self) -> list[SchemaNote]:
        constraint = self._constraint or self._later
        return constraint.notes if constraint is not None else []

    # --- one draw

    def _draw(self, logits: np.ndarray[Any, Any], runner: Runner) -> Sliced[Draw]:
        """The next tokens of the answer. The logits are read before it is first left."""
        self._texts.clear()
        try:
            pieces = self._read(runner)  # what the answer must begin with
            draw = yield from self._end_if_due(pieces, runner)
            if draw is None:
                constraint = self._constraint
                mask = constraint.allowed() if constraint is not None else None
                if self._logprobs is not None:
                    self._logprobs.weigh(logits, mask)
                token = self._sampler.pick(logits, runner.candidates, mask)
                if token in runner.end_tokens and not self._must_go_on():
                    return self._with_scores(self._complete(pieces), runner)
                if (closing := (yield from self._closing_instead_of(token))) is not None:
                    return self._with_scores(self._close_with(closing, pieces, runner), runner)
                if token in runner.end_tokens and self._must_form:
                    self._close_reasoning()
                else:
                    if self._logprobs is not None:
                        self._logprobs.drew(self.n_generated, token, runner)
                    self._append(token, constraint.accept(token) if constraint is not None else [])
                pieces = pieces.and_then(self._read(runner)).and_then(self._take_over(runner))
                draw = (yield from self._end_if_due(pieces, runner)) or Draw(pieces)
        except EdgeAgentError as exc:
            return Draw(Pieces(), "error", (exc.code, exc.message))
        return self._with_scores(draw, runner)

    def _with_scores(self, draw: Draw, runner: Runner) -> Draw:
        """The draw with the log-probabilities of the tokens that it sends, where they are wanted; else by
        tokens."""
        if self._scores is not None:
            scored = self._scores.tell(self._index, runner)
            draw = draw._replace(pieces=draw.pieces._replace(scored=scored))
        if self._logprobs is None:
            return self._with_texts(draw)
        pieces, parser = draw.pieces, self._parser
        passed = parser.passed if parser is not None else None
        is_end = draw.finish is not None or (parser is not None and parser.has_said_all)
        told = self._logprobs.tell(len(pieces.text), passed, is_end=is_end)
        return draw._replace(pieces=pieces._replace(logprobs=tuple(told)))

    def _with_texts(self, draw: Draw) -> Draw:
        """The draw with the texts of its tokens, if they are all that it says."""
        texts = tuple(filter(None, self._texts))
        is_text = draw.pieces == Pieces("".join(texts))
        return draw._replace(texts=texts) if is_text and len(texts) > 1 else draw

    # --- tokens

    def _append(self, token: int, forced: list[int]) -> None:
        """Append as many tokens as the answer may have; the rest is for an answer that is closed."""
        room = self.max_new - self.n_generated
        self.tokens.append(token)
        self._append_forced(forced, room - 1)

    def _append_forced(self, forced: list[int], room: int) -> None:
        for token in forced[:room]:
            self.tokens.append(token)
            self._sampler.accept(token)
        self._unsaid += forced[room:]

    def _read(self, runner: Runner) -> Pieces:
        """The pieces that the tokens since the last call add. Tokens behind a stop string are removed."""
        pieces = Pieces()
        while self._n_read < self.n_generated and not self._is_stopped:
            token = self.tokens[self.n_prompt + self._n_read]
            piece = runner.piece(token)
            if self._logprobs is not None:
                marker = self._parser.marker(token) if self._parser is not None else None
                self._logprobs.hear(self._n_read, piece, marker)
            self._n_read += 1
            if self._parser is None:
                self._texts.append(self._text.push(piece))
                pieces = pieces.and_then(Pieces(self._texts[-1]))
                continue
            new = self._parser.push(token, piece)
            self._texts.append(new.text)
            pieces = pieces.and_then(new)
            for name, arguments in self._parser.finished_calls():
                constraint = self._constraint or self._later
                assert constraint is not None, "only a grammar makes calls"
                constraint.check_call(name, arguments)
        if self._is_stopped:
            del self.tokens[self.n_prompt + self._n_read :]
        if pieces.text:
            self._sent.append(pieces.text)
        return pieces

    @property
    def _is_stopped(self) -> bool:
        """Whether a stop string has come."""
        source = self._parser if self._parser is not None else self._text
        return source.is_stopped

    # --- the constraint takes over

    def _take_over(self, runner: Runner) -> Pieces:
        """Let the grammar continue from here, if the last token says so."""
        handover = self._parser.handover() if self._parser is not None else None
        if handover is None or self._later is None:
            return Pieces()
        assert self._parser is not None
        constraint = self._constraint = self._later
        self._later = None
        pieces = Pieces()
        rest = "" if handover.is_torn else handover.rest
        if constraint.begin(handover.head, rest) and not handover.is_torn:
            pieces = self._parser.go_on(handover.rest)
        else:  # the grammar refuses how the last token ends: it is spelled anew, without that
            self._parser.forget_rest()
            if self._logprobs is not None:
                self._logprobs.forget_last()
            del self.tokens[-1:]
            for token in constraint.spelled(handover.kept):
                self.tokens.append(token)
            self._n_read = self.n_generated
        forced = constraint.go_on(self.n_generated)
        self._append_forced(forced, max(0, self.max_new - self.n_generated))
        return pieces.and_then(self._read(runner))

    def _close_reasoning(self) -> None:
        """A model that ends within its reasoning has yet to give the answer that was asked for."""
        assert self._later is not None
        assert self._parser is not None
        for token in self._later.spelled(self._parser.closing):
            self.tokens.append(token)

    # --- the end

    def _must_go_on(self) -> bool:
        """Whether the answer has to go on where the model would end it."""
        return self._constraint is None and (self._must_form or self._ignores_eos)

    def _end_if_due(self, pieces: Pieces, runner: Runner) -> Sliced[Draw | None]:
        """How the answer ends with the tokens it has now, or None."""
        constraint = self._constraint
        if self._is_stopped:
            return self._cut_by_stop(pieces)
        # Tokens that there was no room for were accepted all the same.
        is_whole = constraint is not None and constraint.is_complete
        if is_whole and constraint is not None and constraint.n_tokens == self.n_generated:
            return self._complete(pieces)
        if self._parser is not None and self._parser.is_repeating:
            return self._complete(pieces)
        if self.n_generated >= self.max_new:
            return (yield from self._out_of_tokens(pieces, runner))
        return None

    def _closing_instead_of(self, token: int) -> Sliced[list[int] | None]:
        """What to end with instead of a drawn token behind which the answer could not be ended any more."""
        if self._ending is None or self._constraint is None:
            return None
        room = self.max_new - self.n_generated
        return (yield from self._ending.instead(self._constraint, token, room))

    def _close_with(self, closing: list[int], pieces: Pieces, runner: Runner) -> Draw:
        for token in [*self._unsaid, *closing]:
            self.tokens.append(token)
            self._sampler.accept(token)
        self._unsaid.clear()
        pieces = pieces.and_then(self._read(runner))
        if self._is_stopped:
            return self._cut_by_stop(pieces)
        if self._parser is not None and self._parser.n_calls and self._constraint is not None:
            self._constraint.notes.append(CUT)
        return Draw(pieces.and_then(self._rest()), "length")

    def _out_of_tokens(self, pieces: Pieces, runner: Runner) -> Sliced[Draw]:
        """The end of an answer that is not whole: where there is a way out it is taken all the same."""
        if self._ending is not None and self._later is not None and self._must_form:
            self._close_reasoning()
            pieces = pieces.and_then(self._read(runner)).and_then(self._take_over(runner))
        if self._ending is not None and self._constraint is not None:
            closing = yield from self._constraint.way_out(None, LAST_TRY)
            if closing is not None:
                return self._close_with(closing, pieces, runner)
        return Draw(pieces.and_then(self._rest()), "length")

    def _rest(self) -> Pieces:
        """What was held back."""
        if self._parser is not None:
            return self._parser.finish()
        return Pieces(self._text.finish())

    def _complete(self, pieces: Pieces) -> Draw:
        """The end of an answer, after a check. Raises: SchemaViolated."""
        rest = self._rest()
        has_calls = self._parser is not None and self._parser.n_calls > 0
        if self._constraint is not None and not has_calls:
            self._constraint.check("".join(self._sent) + rest.text)
        return Draw(pieces.and_then(rest), "tool_calls" if has_calls else "stop")

    def _cut_by_stop(self, pieces: Pieces) -> Draw:
        """A stop string may end an answer that is whole without it. Raises: InvalidParameter."""
        if self._constraint is None:
            return Draw(pieces, "stop")
        try:
            self._constraint.check("".join(self._sent))
        except EdgeAgentError:
            raise InvalidParameter(
                "A stop string ended the answer before it had the form asked for: leave out `stop`.",
                param="stop",
            ) from None
        return Draw(pieces, "stop")
