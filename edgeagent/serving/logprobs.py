"""Tokens with their log-probabilities, in the formats of the APIs."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from edgeagent.types.answer import TokenLogprob

Body = dict[str, Any]


class Speller:
    """The tokens of one answer as text.

    The `token` fields add up to the text, as the `bytes` fields do: the token that completes a character
    has all of it, the tokens before it within the character are empty.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._n_read = 0

    def spell(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        self._n_read += len(text)
        return text

    def shown(self, logprobs: Sequence[TokenLogprob]) -> list[Body]:
        """The format of chats, responses and Ollama's answers."""
        return [
            _entry(self.spell(one.piece), one.piece, one.logprob)
            | {"top_logprobs": [_entry(_alone(t.piece), t.piece, t.logprob) for t in one.top]}
            for one in logprobs
        ]

    def legacy(self, logprobs: Sequence[TokenLogprob]) -> Body:
        """The format of completions: one list for each property, `text_offset` in characters. The first
        token of all has nulls."""
        shown: Body = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in logprobs:
            shown["text_offset"].append(self._n_read)
            text = self.spell(one.piece)
            shown["tokens"].append(text)
            shown["token_logprobs"].append(one.logprob)
            # Of tokens with the same text the most probable one counts.
            top = {_alone(other.piece): other.logprob for other in reversed(one.top)}
            said = {text: one.logprob} if one.logprob is not None else None
            shown["top_logprobs"].append(said | top if said is not None else None)
        return shown


def fitted(scored: Sequence[TokenLogprob], echo: str) -> list[TokenLogprob]:
    """The tokens of a prompt that add up to its text: without the begin token, and without a space before
    the first word that the tokenizer has added."""
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
    """The text of a token on its own."""
    return piece.decode("utf-8", "replace")


def _entry(text: str, piece: bytes, logprob: float | None) -> Body:
    return {"token": text, "logprob": logprob, "bytes": list(piece)}
