"""The sentences of what was found for one question, and those of them that are the answer.

1. each has a score by its vector and its words (`knowledge/quotes`)
2. a judge, where it has read the passages, reads the best of them too: its word counts more
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from edgeagent.knowledge.document import below
from edgeagent.knowledge.quotes import (
    Candidate,
    Quote,
    candidates,
    judged_quote,
    quoted,
    scored,
    sentence_evidence,
    to_judge,
)
from edgeagent.knowledge.sentences import sentence_spans
from edgeagent.serving.knowledge.file_search_tool import FileSearch
from edgeagent.serving.knowledge.judge import Judge
from edgeagent.serving.knowledge.retrieval import Retrieval
from edgeagent.serving.knowledge.wishes import Passage


class Told(NamedTuple):
    """Sentences of passages: where each ends, and of which it is. `score`: how much the best of them tells,
    by a judge's word, or by its vector and its words."""

    text: str
    ends: list[tuple[int, Passage]]
    score: float
    is_judged: bool


class Quotation:
    """Vectors of sentences are asked for once, and only if needed. `judged`: what a judge says of the
    first passages, in their order; None: it was not asked."""

    def __init__(
        self, retrieval: Retrieval, judge: Judge, owner: str, tool: FileSearch, query: str,
        found: Sequence[Passage], judged: Sequence[float] | None,
    ) -> None:  # fmt: skip
        self._retrieval = retrieval
        self._judge = judge
        self._place = owner, tool.store_ids
        self._query = query
        self._found = found
        self._judged = judged
        self._choice = candidates([passage.told for passage in found])
        self._near: dict[str, float] | None = None

    async def evidence(self) -> float:
        """That of the sentence that tells most."""
        return sentence_evidence(self._query, self._choice, await self._similarity())

    async def told(self) -> Told:
        """The sentences that answer; the first passage where none can be told apart, or where it is a short
        answer. Where no judge reads them, the evidence of the sentence that tells most counts in the score,
        too; where it has read the passages only, its word on the best of them is the score."""
        has_sentences = any(one.passage == 0 for one in self._choice)
        if self._judged and not has_sentences:
            return self._whole(self._judged[0], is_judged=True)
        headings = [passage.about for passage in self._found]
        near = await self._similarity()
        scores = await asyncio.to_thread(scored, self._query, self._choice, headings, near)  # 1
        if self._judged and (said := await self._sentences_judged(to_judge(scores))):  # 2
            return self._of(judged_quote(scores, said, self._judged), is_judged=True)
        found = quoted(scores)
        if self._judged:
            return self._of(found._replace(score=self._judged[0]), is_judged=True)
        if near:
            found = found._replace(score=(found.score + await self.evidence()) / 2)
        return self._of(found, is_judged=False)

    def _of(self, quote: Quote, *, is_judged: bool) -> Told:
        if not quote.parts:
            return self._whole(quote.score, is_judged=is_judged)
        sizes = accumulate(len(one.text) + 1 for one in quote.parts)
        passages = [self._found[one.passage] for one in quote.parts]
        ends = [(size - 1, passage) for size, passage in zip(sizes, passages, strict=True)]
        return Told(quote.text, ends, quote.score, is_judged)

    def _whole(self, score: float, *, is_judged: bool) -> Told:
        first = self._found[0]
        ends = [(span.end, first) for span in sentence_spans(first.told)]
        return Told(first.told, ends, score, is_judged)

    async def _sentences_judged(self, asked: Sequence[Candidate]) -> dict[Candidate, float]:
        texts = [below(self._found[one.passage].about, one.text) for one in asked]
        values = await self._judge.scores(self._query, texts) or []
        return dict(zip(asked, values, strict=False))

    async def _similarity(self) -> dict[str, float]:
        if self._near is None:
            texts = list(dict.fromkeys(one.text for one in self._choice))
            self._near = await self._retrieval.near(*self._place, self._query, texts)
        return self._near
