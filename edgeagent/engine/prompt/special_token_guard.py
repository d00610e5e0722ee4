"""Keeps texts of clients literal: none can spell a special token or forge a turn.

A template mixes its own markup with texts of clients, and the tokenizer cannot distinguish them in the
rendered text. Therefore the characters that the names of special tokens need (usually just "<") are replaced,
in all texts of clients, by letters that occur nowhere in them, one for one, so that lengths, white space and
case stay the same for templates that look at them. The rendered text is then split at the special tokens,
all of which are the template's own, and the characters are put back.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from edgeagent.engine.prompt.special_token_search import SpecialTokens, Tokenizer
from edgeagent.errors import InvalidParameter

# Letters without case that are printable and rare: Vai, Yi, Hangul, CJK Extension B.
_STAND_INS = (range(0xA500, 0xA60C), range(0xA000, 0xA48D), range(0xAC00, 0xD7A4),
              range(0x20000, 0x2A6D6))  # fmt: skip
# Texts before which a text may be tokenized so that no space is put in front of it.
_LEADS = ("\n", "~", "\x02")


class LiteralTextGuard:
    """Hides the characters of special tokens in the texts of one request, and puts them back.

    `hidden` are all values that will be hidden, `template` the template's text. Raises: InvalidParameter if
    every letter that could replace a character occurs in them.
    """

    def __init__(self, specials: SpecialTokens, hidden: Any, template: str = "") -> None:
        texts = list(_strings(hidden))
        self._specials = specials
        words = [word for word in specials.words if any(word in text for text in texts)]
        found = {sign for sign in specials.signs if any(sign in text for text in texts)}
        found |= {word[0] for word in words}
        if specials.strips_left or specials.strips_right:
            found |= {c for text in texts for c in (text[:1], text[-1:]) if c.isspace()}
        self._words = re.compile("|".join(map(re.escape, words))) if words else None
        chosen = _stand_ins(len(found), [*texts, template])
        self._by_sign = dict(zip(sorted(found), chosen, strict=True))
        self._signs = str.maketrans(
            {sign: c for sign, c in self._by_sign.items() if sign in specials.signs}
        )
        # As a template writes them out in ASCII, too.
        back = {c: sign for sign, c in self._by_sign.items()}
        self._back = back | {_escaped(c): sign for c, sign in back.items()}
        self._seen = re.compile("|".join(map(re.escape, self._back))) if back else None

    def hide(self, value: Any) -> Any:
        """The value with all of its texts hidden, keys included."""
        if not self._by_sign:
            return value
        if isinstance(value, str):
            return self._hidden(value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def hide_all_but(self, text: str, markers: Iterable[str]) -> str:
        """A text with some markers left as they are."""
        names = "|".join(map(re.escape, markers))
        parts = re.split(f"({names})", text) if names else [text]
        return "".join(part if i % 2 else self.hide(part) for i, part in enumerate(parts))

    def hide_json(self, text: str) -> str:
        """JSON, with the texts in it hidden; it stays as it is where there is nothing to hide."""
        if not self._by_sign:
            return text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return str(self.hide(text))
        hidden = self.hide(value)
        return text if hidden == value else json.dumps(hidden, ensure_ascii=False)

    def restore(self, text: str) -> str:
        """A rendered text with the signs in their places."""
        if self._seen is None:
            return text
        return self._seen.sub(lambda match: self._back[match.group()], text)

    def _hidden(self, text: str) -> str:
        hidden = text.translate(self._signs)
        if self._words is not None:
            hidden = self._words.sub(lambda m: self._by_sign[m[0][0]] + m[0][1:], hidden)
        # White space that a special token removes beside it.
        if self._specials.strips_right and hidden[:1].isspace():
            hidden = self._by_sign[hidden[0]] + hidden[1:]
        if self._specials.strips_left and hidden[-1:].isspace():
            hidden = hidden[:-1] + self._by_sign[hidden[-1]]
        return hidden


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _stand_ins(n: int, texts: list[str]) -> list[str]:
    """As many characters that occur in none of the texts, neither literally nor escaped."""
    if not n:
        return []
    used: set[str] = set().union(*map(set, texts))
    chosen: list[str] = []
    for letters in _STAND_INS:
        for letter in map(chr, letters):
            if letter not in used and not any(_escaped(letter) in text for text in texts):
                chosen.append(letter)
                if len(chosen) == n:
                    return chosen
    raise InvalidParameter(
        "The messages have every letter of Vai, Yi, Hangul and CJK Extension B in them: send fewer.",
        param="messages",
    )


def _escaped(letter: str) -> str:
    return json.dumps(letter)[1:-1]


class TextTokenizer:
    """Tokens of one vocabulary for texts of clients, and for templates with such texts in them.

    For ordinary texts the tokens are those of llama.cpp. Used by one thread.
    """

    def __init__(self, tokenizer: Tokenizer, specials: SpecialTokens) -> None:
        self._tokenizer = tokenizer
        self.specials = specials
        names = sorted(specials.inert, key=len, reverse=True)
        self._inert = re.compile("|".join(map(re.escape, names))) if names else None
        lead = self._cut("a")
        self._adds_space = bool(lead) and tokenizer.piece(lead[0]).startswith(b" ")

    def plain(self, text: str) -> array[int]:
        """The tokens of a client's text, in which names of special tokens are text."""
        tokens, at = array("i"), 0
        place = self._inert.search(text) if self._inert is not None else None
        while place is not None:
            # A name that is cut behind its first character is no name.
            cut = place.start() + 1
            tokens += self._part(text[at:cut], is_first=at == 0)
            at = cut
            assert self._inert is not None
            place = self._inert.search(text, cut)
        if at < len(text):
            tokens += self._part(text[at:], is_first=at == 0)
        return tokens

    def rendered(self, text: str, guard: LiteralTextGuard | None = None) -> array[int]:
        """The tokens of a rendered text in which `guard` has hidden the texts of clients."""
        tokens = array("i")
        for piece in self.specials.pieces(text):
            if isinstance(piece, int):
                tokens.append(piece)
            else:
                tokens += self.plain(guard.restore(piece) if guard is not None else piece)
        return tokens

    def _part(self, text: str, *, is_first: bool) -> array[int]:
        """Part of a text; SentencePiece puts a space before the first part only."""
        if is_first or not self._adds_space:
            return self._cut(text)
        for lead in _LEADS:
            before, both = self._cut(lead), self._cut(lead + text)
            if both[: len(before)] == before:
                return both[len(before) :]
        return self._cut(text)

    def _cut(self, text: str) -> array[int]:
        return self._tokenizer.tokens_of(text, add_special=False, parse_special=False)
