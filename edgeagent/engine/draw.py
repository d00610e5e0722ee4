"""One draw for an answer that must have a form, and the tokens that its grammar forces after it.

Forced tokens are appended as they are and computed together in the next step, as a small prefill,
instead of being drawn one by one: "jump-forward". They count as generated.
Source: Zheng et al. 2023, SGLang, arXiv:2312.07104, section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgeagent.engine.constrain import Constraint
from edgeagent.engine.runner import Runner
from edgeagent.engine.sequence import Sequence
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.types import FinishReason


class Drawn(NamedTuple):
    """New text, and how the answer ends if it does."""

    text: str
    finish: FinishReason | None = None
    error: tuple[str, str] | None = None


def draw(seq: Sequence, logits: np.ndarray[Any, Any], runner: Runner) -> Drawn:
    """The next tokens of a constrained answer, from logits (float32 [n_vocab], changed in place)."""
    constraint = seq.constraint
    assert constraint is not None
    try:
        opening = _tell(seq, runner)
        drawn = _ended(seq, constraint, opening)
        if drawn is None:
            token = seq.sampler.pick(logits, runner.candidates, constraint.allowed())
            if token in runner.end_tokens:
                return _whole(seq, constraint, opening)
            _append(seq, token, constraint.accept(token))
            text = opening + _tell(seq, runner)
            drawn = _ended(seq, constraint, text) or Drawn(text)
    except EdgeAgentError as exc:
        return Drawn("", "error", (exc.code, exc.message))
    return drawn


def _append(seq: Sequence, token: int, forced: list[int]) -> None:
    """As many of them as the answer may have."""
    room = seq.max_new - seq.n_generated
    seq.tokens.append(token)
    for following in forced[: room - 1]:
        seq.tokens.append(following)
        seq.sampler.accept(following)


def _tell(seq: Sequence, runner: Runner) -> str:
    """The text of the tokens since the last call. What follows a stop string is taken back."""
    text = ""
    while seq.n_told < seq.n_generated and not seq.text.is_stopped:
        text += seq.text.push(runner.piece(seq.tokens[seq.n_prompt + seq.n_told]))
        seq.n_told += 1
    if seq.text.is_stopped:
        del seq.tokens[seq.n_prompt + seq.n_told :]
        seq.n_past = min(seq.n_past, len(seq.tokens))
    if text:
        seq.told.append(text)
    return text


def _ended(seq: Sequence, constraint: Constraint, text: str) -> Drawn | None:
    """How the answer ends with the tokens it has now, or None."""
    if seq.text.is_stopped:
        return _cut_by_stop(seq, constraint, text)
    # Tokens that there was no room for were accepted all the same.
    if constraint.is_complete and constraint.n_tokens == seq.n_generated:
        return _whole(seq, constraint, text)
    if seq.n_generated >= seq.max_new:
        return Drawn(text + seq.text.finish(), "length")
    return None


def _whole(seq: Sequence, constraint: Constraint, text: str) -> Drawn:
    """The end of an answer, after a check. Raises: SchemaViolated."""
    rest = seq.text.finish()
    constraint.check("".join(seq.told) + rest)
    return Drawn(text + rest, "stop")


def _cut_by_stop(seq: Sequence, constraint: Constraint, text: str) -> Drawn:
    """A stop string may end an answer that is whole without it. Raises: InvalidParameter."""
    try:
        constraint.check("".join(seq.told))
    except EdgeAgentError:
        raise InvalidParameter(
            "A stop string ended the answer before it had the form asked for: leave out `stop`.",
            param="stop",
        ) from None
    return Drawn(text, "stop")
