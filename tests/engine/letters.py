"""A vocabulary of single characters, whose tokens can be read, with the special tokens a test wants."""

from __future__ import annotations

import re
from array import array

from edgeagent.engine.prompt.special_token_search import USER_DEFINED

NORMAL = 1 << 2


class Letters:
    """A vocabulary of single characters and the special tokens given, which tokenizes as llama.cpp does:
    user-defined tokens are found in every text. `adds_space` as SentencePiece."""

    def __init__(self, specials: dict[str, int], *, adds_space: bool = False) -> None:
        self._names = list(specials)
        self._kinds = list(specials.values())
        self._adds_space = adds_space
        self.n_vocab = len(specials)

    def attributes(self, token: int) -> int:
        return self._kinds[token] if token < self.n_vocab else NORMAL

    def text_of(self, token: int) -> str:
        return self._names[token] if token < self.n_vocab else chr(token - self.n_vocab)

    def piece(self, token: int) -> bytes:
        return self.text_of(token).encode()

    def tokens_of(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]:
        found = [
            name
            for name, kind in zip(self._names, self._kinds, strict=True)
            if parse_special or kind & USER_DEFINED
        ]
        names = "|".join(re.escape(name) for name in sorted(found, key=len, reverse=True))
        tokens, is_start = array("i"), True
        for i, part in enumerate(re.split(f"({names})", text) if names else [text]):
            if i % 2:
                tokens.append(self._names.index(part))
            elif part:
                part = f" {part}" if self._adds_space and is_start else part
                tokens.extend(self.n_vocab + ord(c) for c in part)
            is_start = bool(i % 2)
        return tokens

    def text(self, tokens: array[int]) -> str:
        return "".join(map(self.text_of, tokens))

    def control(self, tokens: array[int]) -> list[str]:
        """The names of the special tokens among some."""
        return [self._names[token] for token in tokens if token < self.n_vocab]


class ModelVocabulary(Letters):
    """As a `PromptBuilder` needs it of a model. `bos` is put first where `adds_bos`."""

    fim_marks = (-1, -1, -1)

    def __init__(
        self, specials: dict[str, int], bos: str | None, eos: str, *, adds_bos: bool = False,
        adds_space: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(specials, adds_space=adds_space)
        self.bos = self._names.index(bos) if bos is not None else None
        self.eos = self._names.index(eos)
        self.adds_bos = adds_bos

    def with_bos(self, tokens: array[int]) -> array[int]:
        if self.adds_bos and self.bos is not None and tokens[:1] != array("i", [self.bos]):
            tokens.insert(0, self.bos)
        return tokens
