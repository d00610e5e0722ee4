"""Tokens with their log-probabilities in the words of the APIs."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from edgeagent.types.answer import TokenLogprob

Body = dict[str, Any]


class Speller:
    """One answer's tokens as text. What is called `token` adds up to the text, as `bytes` do: the token
    that completes a character has all of it, those before it in the same one have none."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._n_read = 0

    def spell(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        self._n_read += len(text)
        return text

    def shown(self, logprobs: Sequence[TokenLogprob]) -> list[Body]:
        """As chats, responses and Ollama's answers show them."""
        return [
            _entry(self.spell(one.piece), one.piece, one.logprob)
            | {"top_logprobs": [_entry(_alone(t.piece), t.piece, t.logprob) for t in one.top]}
            for one in logprobs
        ]

    def legacy(self, logprobs: Sequence[TokenLogprob]) -> Body:
        """As completions show them: one list for each property, `text_offset` in characters. A token with
        nothing before it has nulls."""
        shown: Body = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in logprobs:
            shown["text_offset"].append(self._n_read)
            text = self.spell(one.piece)
            shown["tokens"].append(text)
            shown["token_logprobs"].append(one.logprob)
            # Among tokens that look alike the most probable one counts.
            top = {_alone(other.piece): other.logprob for other in reversed(one.top)}
            said = {text: one.logprob} if one.logprob is not None else None
            shown["top_logprobs"].append(said | top if said is not None else None)
        return shown


def fitted(scored: Sequence[TokenLogprob], echo: str) -> list[TokenLogprob]:
    """A prompt's tokens so that they add up to the prompt: without the mark of a beginning, and without the
    space before the first word, where the tokenizer added them."""
    whole = b"".join(one.piece for one in scored)
    text = echo.encode()
    for n_left_out in (0, 1):
        rest = scored[n_left_out:]
        left = whole[sum(len(one.piece) for one in scored[:n_left_out]) :]
        if left == text:
            return list(rest)
        if rest and left == b" " + text:
            first = rest[0]
            return [TokenLogprob(first.piece[1:], first.logprob, first.top), *rest[1:]]
    return list(scored)


def _alone(piece: bytes) -> str:
    """A token that is not part of the text."""
    return piece.decode("utf-8", "replace")


def _entry(text: str, piece: bytes, logprob: float | None) -> Body:
    return {"token": text, "logprob": logprob, "bytes": list(piece)}
