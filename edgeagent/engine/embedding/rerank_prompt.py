"""A query beside a document, in the tokens that a cross-encoder was trained on, and what its answer means.

    BERT                    [CLS] query [SEP] document [SEP]
    RoBERTa, XLM-R          <s> query </s></s> document </s>
    with a template         the file's own text around both ("rerank" among its chat templates)

Sources: the post-processors of the models' published tokenizers; llama.cpp's `llama-server`, which
takes the same marks from the file. It leaves the last mark of a BERT away, with which they were trained.
llama.cpp gives every token the first segment's type: a BERT that tells the two apart loses a little.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from typing import Protocol

from edgeagent.errors import ModelUnusable

_PLACES = re.compile(r"(\{query\}|\{document\})")


class PairVocabulary(Protocol):
    """What pairs are made with: a vocabulary, and what the model's file says of it."""

    @property
    def pair_marks(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before a query, between it and a document, and after that."""
        ...

    @property
    def rank_template(self) -> str | None: ...

    def tokens_of(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]: ...

    def special_names(self, text: str) -> list[str]:
        """The special tokens that occur in a text, by their names."""
        ...

    def detokenize(self, tokens: list[int]) -> str: ...


class PairBuilder:
    """Makes pairs for one model. `document` tokenizes one; `pair` puts it beside the query."""

    def __init__(self, marks: PairVocabulary) -> None:
        self._marks = marks
        template = marks.rank_template
        self._names: re.Pattern[str] | None = None
        if template is not None:
            if "{query}" not in template or "{document}" not in template:
                raise ModelUnusable(
                    "The rerank template of this model lacks {query} or {document}: convert it again."
                )
            # The longest first: one name may begin like another.
            names = sorted(marks.special_names(template), key=len, reverse=True)
            self._names = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    def tokens(self, text: str) -> array[int]:
        """A text's own tokens; what looks like a special token in it is text."""
        return self._marks.tokens_of(text, add_special=False, parse_special=False)

    def pair(self, query: str, document: str, kept: array[int]) -> array[int]:
        """The whole input: int32 [n]. `kept` are the document's tokens, all of them or the first."""
        if self._marks.rank_template is None:
            begin, between, end = self._marks.pair_marks
            return array("i", [*begin, *self.tokens(query), *between, *kept, *end])
        if len(kept) < len(self.tokens(document)):
            document = self._marks.detokenize(list(kept))
        return self._filled(self._marks.rank_template, {"{query}": query, "{document}": document})

    def _filled(self, template: str, values: dict[str, str]) -> array[int]:
        """Special tokens are those of the template alone: the tokenizer cuts a text at them first, so what
        stands between two is tokenized as it would be within the whole."""
        tokens = array("i")
        parts = self._names.split(template) if self._names is not None else [template]
        for i, part in enumerate(parts):
            if i % 2:
                tokens += self._marks.tokens_of(part, add_special=False, parse_special=True)
            elif part:
                text = "".join(values.get(piece, piece) for piece in _PLACES.split(part))
                tokens += self.tokens(text)
        return tokens

    def fitted(
        self, query: str, document: str, bound: int, n_document: int | None
    ) -> array[int] | None:
        """The pair with the document's first tokens, at most `n_document`, so that all is within `bound`.
        None: not even one of them would be."""
        whole = self.tokens(document)
        n = len(whole) if n_document is None else min(len(whole), n_document)
        pair = self.pair(query, document, whole[:n])
        while len(pair) > bound:
            n -= len(pair) - bound
            if n < 1:
                return None
            pair = self.pair(query, document, whole[:n])
        return pair


def relevance(outputs: Sequence[float]) -> float:
    """0..1 of what a model says of a pair: one logit, or the probabilities of yes and no."""
    if len(outputs) > 1:
        return min(1.0, max(0.0, outputs[0]))
    logit = outputs[0]
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
