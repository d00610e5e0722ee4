"""One draw for an answer that is taken apart or must have a form, and the tokens that are forced after it.

Forced tokens are appended as they are and computed together in the next step, as a small prefill,
instead of being drawn one by one: "jump-forward". They count as generated.
Source: Zheng et al. 2023, SGLang, arXiv:2312.07104, section 4.

A search for the shortest end of an answer goes on a little in each step; until it is over the answer has no
next token.

Where a grammar is to take over later, tokens are drawn freely until then and cost no mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgeagent.engine.batching.runner import Runner
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.time_slices import Sliced
from edgeagent.engine.output.output_parser import Said
from edgeagent.engine.structured.byte_grammar import LAST_TRY
from edgeagent.engine.structured.constraint import Constraint
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.types.answer import FinishReason, SchemaNote

CUT = SchemaNote(
    None, "#", "max_tokens", "the tokens ran out within a call: what was open is closed, check its arguments"
)  # fmt: skip


class Drawn(NamedTuple):
    """What is new, and how the answer ends if it does."""

    said: Said = Said()
    finish: FinishReason | None = None
    error: tuple[str, str] | None = None


def draw(seq: Sequence, logits: np.ndarray[Any, Any], runner: Runner) -> Sliced[Drawn]:
    """The next tokens of an answer, from logits (float32 [n_vocab], changed in place). They are read before
    it is first left."""
    try:
        said = _tell(seq, runner)  # what it must begin with
        drawn = yield from _ended(seq, said, runner)
        if drawn is None:
            constraint = seq.constraint
            mask = constraint.allowed() if constraint is not None else None
            if seq.logprobs is not None:
                seq.logprobs.weigh(logits, mask)
            token = seq.sampler.pick(logits, runner.candidates, mask)
            if token in runner.end_tokens and not _goes_on(seq):
                return _told(seq, _whole(seq, said), runner)
            if (closing := (yield from _closing(seq, token))) is not None:
                return _told(seq, _closed(seq, closing, said, runner), runner)
            if token in runner.end_tokens and seq.must_form:
                _close_reasoning(seq)
            else:
                if seq.logprobs is not None:
                    seq.logprobs.drew(seq.n_generated, token, runner)
                _append(seq, token, constraint.accept(token) if constraint is not None else [])
            said = said.and_then(_tell(seq, runner)).and_then(_take_over(seq, runner))
            drawn = (yield from _ended(seq, said, runner)) or Drawn(said)
    except EdgeAgentError as exc:
        return Drawn(Said(), "error", (exc.code, exc.message))
    return _told(seq, drawn, runner)


def _told(seq: Sequence, drawn: Drawn, runner: Runner) -> Drawn:
    """The same with the log-probabilities of the tokens that it tells of, where they are wanted."""
    if seq.scores is not None:
        scored = seq.scores.tell(seq.index, runner)
        drawn = drawn._replace(said=drawn.said._replace(scored=scored))
    if seq.logprobs is None:
        return drawn
    said, reader = drawn.said, seq.reader
    passed = reader.passed if reader is not None else None
    is_end = drawn.finish is not None or (reader is not None and reader.has_said_all)
    told = seq.logprobs.tell(len(said.text), passed, is_end=is_end)
    return drawn._replace(said=said._replace(logprobs=tuple(told)))


def _goes_on(seq: Sequence) -> bool:
    """Whether the answer has to go on where the model would end it."""
    return seq.constraint is None and (seq.must_form or seq.request.spec.ignore_eos)


def _closing(seq: Sequence, token: int) -> Sliced[list[int] | None]:
    """What to end with instead of a drawn token, behind which the answer could not be ended any more."""
    if seq.ending is None or seq.constraint is None:
        return None
    return (yield from seq.ending.instead(seq.constraint, token, seq.max_new - seq.n_generated))


def _closed(seq: Sequence, closing: list[int], said: Said, runner: Runner) -> Drawn:
    for token in [*seq.unsaid, *closing]:
        seq.tokens.append(token)
        seq.sampler.accept(token)
    seq.unsaid.clear()
    said = said.and_then(_tell(seq, runner))
    if seq.is_stopped:
        return _cut_by_stop(seq, seq.constraint, said)
    if seq.reader is not None and seq.reader.n_calls and seq.constraint is not None:
        seq.constraint.notes.append(CUT)
    return Drawn(said.and_then(_rest(seq)), "length")


def _append(seq: Sequence, token: int, forced: list[int]) -> None:
    """As many of them as the answer may have; the rest is for the end of one that is closed."""
    room = seq.max_new - seq.n_generated
    seq.tokens.append(token)
    _append_forced(seq, forced, room - 1)


def _append_forced(seq: Sequence, forced: list[int], room: int) -> None:
    for token in forced[:room]:
        seq.tokens.append(token)
        seq.sampler.accept(token)
    seq.unsaid += forced[room:]


def _close_reasoning(seq: Sequence) -> None:
    """A model that ends within its reasoning has yet to give the answer that was asked for."""
    assert seq.later is not None
    assert seq.reader is not None
    for token in seq.later.spelled(seq.reader.closing):
        seq.tokens.append(token)


def _take_over(seq: Sequence, runner: Runner) -> Said:
    """Let the grammar go on from here, if the last token says so."""
    began = seq.reader.began() if seq.reader is not None else None
    if began is None or seq.later is None:
        return Said()
    assert seq.reader is not None
    seq.constraint, seq.later = seq.later, None
    said = Said()
    if seq.constraint.begin(began.head, "" if began.is_torn else began.rest) and not began.is_torn:
        said = seq.reader.go_on(began.rest)
    else:  # the grammar cannot bear how the last token ends: it is spelled anew, without that
        seq.reader.forget_rest()
        if seq.logprobs is not None:
            seq.logprobs.forget_last()
        del seq.tokens[-1:]
        for token in seq.constraint.spelled(began.kept):
            seq.tokens.append(token)
        seq.n_told = seq.n_generated
    forced = seq.constraint.go_on(seq.n_generated)
    _append_forced(seq, forced, max(0, seq.max_new - seq.n_generated))
    return said.and_then(_tell(seq, runner))


def _tell(seq: Sequence, runner: Runner) -> Said:
    """What the tokens since the last call say. What follows a stop string is taken back."""
    said = Said()
    while seq.n_told < seq.n_generated and not seq.is_stopped:
        token = seq.tokens[seq.n_prompt + seq.n_told]
        piece = runner.piece(token)
        if seq.logprobs is not None:
            marker = seq.reader.marker(token) if seq.reader is not None else None
            seq.logprobs.hear(seq.n_told, piece, marker)
        seq.n_told += 1
        if seq.reader is None:
            said = said.and_then(Said(seq.text.push(piece)))
            continue
        said = said.and_then(seq.reader.push(token, piece))
        for name, arguments in seq.reader.finished_calls():
            constraint = seq.constraint or seq.later
            assert constraint is not None, "only a grammar makes calls"
            constraint.check_call(name, arguments)
    if seq.is_stopped:
        del seq.tokens[seq.n_prompt + seq.n_told :]
        seq.n_past = min(seq.n_past, len(seq.tokens))
    if said.text:
        seq.told.append(said.text)
    return said


def _ended(seq: Sequence, said: Said, runner: Runner) -> Sliced[Drawn | None]:
    """How the answer ends with the tokens it has now, or None."""
    constraint = seq.constraint
    if seq.is_stopped:
        return _cut_by_stop(seq, constraint, said)
    # Tokens that there was no room for were accepted all the same.
    if constraint is not None and constraint.is_complete and constraint.n_tokens == seq.n_generated:
        return _whole(seq, said)
    if seq.reader is not None and seq.reader.is_repeating:
        return _whole(seq, said)
    if seq.n_generated >= seq.max_new:
        return (yield from _out_of_tokens(seq, said, runner))
    return None


def _out_of_tokens(seq: Sequence, said: Said, runner: Runner) -> Sliced[Drawn]:
    """The end of an answer that is not whole: where there is a way out it is taken all the same."""
    if seq.ending is not None and seq.later is not None and seq.must_form:
        _close_reasoning(seq)
        said = said.and_then(_tell(seq, runner)).and_then(_take_over(seq, runner))
    if seq.ending is not None and seq.constraint is not None:
        closing = yield from seq.constraint.way_out(None, LAST_TRY)
        if closing is not None:
            return _closed(seq, closing, said, runner)
    return Drawn(said.and_then(_rest(seq)), "length")


def _rest(seq: Sequence) -> Said:
    return seq.reader.finish() if seq.reader is not None else Said(seq.text.finish())


def _whole(seq: Sequence, said: Said) -> Drawn:
    """The end of an answer, after a check. Raises: SchemaViolated."""
    rest = _rest(seq)
    has_calls = seq.reader is not None and seq.reader.n_calls > 0
    if seq.constraint is not None and not has_calls:
        seq.constraint.check("".join(seq.told) + rest.text)
    return Drawn(said.and_then(rest), "tool_calls" if has_calls else "stop")


def _cut_by_stop(seq: Sequence, constraint: Constraint | None, said: Said) -> Drawn:
    """A stop string may end an answer that is whole without it. Raises: InvalidParameter."""
    if constraint is None:
        return Drawn(said, "stop")
    try:
        constraint.check("".join(seq.told))
    except EdgeAgentError:
        raise InvalidParameter(
            "A stop string ended the answer before it had the form asked for: leave out `stop`.",
            param="stop",
        ) from None
    return Drawn(said, "stop")
