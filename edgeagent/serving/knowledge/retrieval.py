"""Finds the passages of vector stores that belong to a question.

1. the stores, which must be the caller's
2. chunks by words (bm25), and by the vector of the question where its model is installed
3. both lists fused by rank
4. the first of them ranked again by a cross-encoder, where one is installed
5. what each passage tells about the question: its evidence
"""

from __future__ import annotations

import asyncio
import logging
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from operator import mul
from typing import Any

import msgspec

from edgeagent.errors import EdgeAgentError, InvalidParameter, ModelNotFound
from edgeagent.knowledge.fusion import fused
from edgeagent.knowledge.questions import question_key
from edgeagent.knowledge.words import content_words, coverage
from edgeagent.serving.content_archive import Archive, absent
from edgeagent.serving.engines import Engines
from edgeagent.serving.knowledge.wishes import Passage, SearchWish, is_expired
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.store import chunks, vector_stores
from edgeagent.store.attribute_filter import AttributeFilter
from edgeagent.store.chunks import ChunkHit, StoredVector, stored_vector
from edgeagent.store.sql import now_ms
from edgeagent.types.unary_requests import EmbedSpec, RerankSpec, Scores, Vectors

logger = logging.getLogger(__name__)

MAX_STORES = 16
MAX_RESULTS = 50
CANDIDATES = 50  # of each list
RERANKED = 20
# Of the evidence. Words tell less: a question about something else shares some, too.
SIMILARITY_WEIGHT = 0.8
USED_INTERVAL_MS = 3_600_000  # how exactly the last use of a store is kept: spares flash


class Retrieval:
    """Event loop's thread only; the database searches on its own threads."""

    def __init__(
        self, archive: Archive, engines: Engines, chooser: ModelChooser, settings: KnowledgeSettings
    ) -> None:
        self._archive = archive
        self._engines = engines
        self._chooser = chooser
        self._settings = settings

    async def search(self, owner: str, wish: SearchWish) -> list[Passage]:
        """The passages, the best first. Raises: NotFound for a store that is not the owner's;
        InvalidParameter, StoreOff."""
        only = AttributeFilter(wish.filters) if wish.filters else None
        stores = await self._stores(owner, wish.store_ids)  # 1
        numbers = [store["n"] for store in stores]
        query = wish.query.strip()
        if not query:
            return []
        by_words, vectors = await asyncio.gather(  # 2: words while the model makes the vector
            self._by_words(numbers, query, only) if wish.method != "vectors" else _nothing(),
            self._vectors_of(stores, query) if wish.method != "words" else _nothing(),
        )
        by_vector = await self._by_vector(vectors, only, [hit.chunk for hit in by_words])
        order = fused([hit.chunk for hit in by_words], {h.chunk: h.value for h in by_vector})  # 3
        ranker = await self._ranker() if wish.reranks and self._settings.reranks else None
        # Some of those that are looked at may be left out in the end.
        may_drop = ranker is not None or wish.least_score > 0
        n_first = max(RERANKED, wish.n_results) if may_drop else wish.n_results
        passages = await self._passages(owner, order[:n_first], query, by_vector)
        if ranker is not None:
            passages = await self._ranked_again(ranker, query, passages)  # 4
        return [p for p in passages if p.score >= wish.least_score][: wish.n_results]

    async def same_question(
        self, owner: str, store_ids: Sequence[str], query: str
    ) -> list[Passage]:
        """Stored questions that are this one but for case and marks. Raises as `search`."""
        key = question_key(query)
        if not key:
            return []
        stores = await self._stores(owner, store_ids)
        numbers = [store["n"] for store in stores]
        found = await self._archive.database.read_async(
            lambda db: chunks.by_question(db, numbers, key)
        )
        return await self._passages(owner, found, query, [])

    async def near(
        self, owner: str, store_ids: Sequence[str], query: str, texts: Sequence[str]
    ) -> dict[str, float]:
        """The cosine of each text to a question, by the model of the first store that has one; empty without
        such a model. Raises as `search`."""
        stores = await self._stores(owner, store_ids)
        model = next((store["model"] for store in stores if store["model"] is not None), None)
        if not texts or model is None or model not in await self._chooser.with_task("embed"):
            return {}
        spec = EmbedSpec(inputs=[query, *texts], truncate=True)
        try:
            async with self._engines.lease(model) as client:
                made: Vectors = await client.ask(spec)
        except EdgeAgentError as exc:
            logger.warning("sentences_without_vectors model=%s code=%s", model, exc.code)
            return {}
        return dict(zip(texts, await asyncio.to_thread(_cosines, made), strict=True))

    async def privacy(self, owner: str, ids: Sequence[str]) -> list[str]:
        """The privacy classes of stores: what their metadata say, else "local", since documents leave a
        device only where somebody allowed it."""
        stores = await self._stores(owner, ids)
        return [msgspec.json.decode(row["metadata"]).get("privacy", "local") for row in stores]

    async def _stores(self, owner: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        if not 1 <= len(ids) <= MAX_STORES:
            raise InvalidParameter(
                f"{len(ids)} vector stores are named, 1 to {MAX_STORES} are searched at once.",
                param="vector_store_ids",
            )

        def read(db: Any) -> list[dict[str, Any] | None]:
            return [vector_stores.get(db, owner, one, with_counts=False) for one in ids]

        found = []
        for one, store in zip(ids, await self._archive.database.read_async(read), strict=True):
            if store is None or is_expired(store):
                raise absent(one)
            found.append(store)
        await self._touch(found)
        return found

    async def _touch(self, stores: list[dict[str, Any]]) -> None:
        at = now_ms()
        old = [store["n"] for store in stores if at - store["used_ms"] > USED_INTERVAL_MS]
        if old:
            with suppress(EdgeAgentError):  # a full disk stops no search
                await self._archive.database.write_async(
                    lambda db: vector_stores.touch(db, old, now_ms=at)
                )

    async def _by_words(
        self, numbers: list[int], query: str, only: AttributeFilter | None
    ) -> list[ChunkHit]:
        return await self._archive.database.read_async(
            lambda db: chunks.by_words(db, numbers, query, CANDIDATES, only)
        )

    async def _vectors_of(
        self, stores: list[dict[str, Any]], query: str
    ) -> list[tuple[list[int], StoredVector]]:
        """The question as a vector of each model that stores have, with the numbers of these stores."""
        models: dict[str, list[int]] = {}
        for store in stores:
            if store["model"] is not None:
                models.setdefault(store["model"], []).append(store["n"])
        if not models:
            return []
        installed = await self._chooser.with_task("embed")
        found = []
        for model, numbers in models.items():
            if model not in installed:
                continue
            try:
                async with self._engines.lease(model) as client:
                    made: Vectors = await client.ask(EmbedSpec(inputs=[query], truncate=True))
            except EdgeAgentError as exc:  # words are found all the same
                logger.warning("search_without_vectors model=%s code=%s", model, exc.code)
                continue
            found.append((numbers, stored_vector(made.data)))
        return found

    async def _by_vector(
        self,
        vectors: list[tuple[list[int], StoredVector]],
        only: AttributeFilter | None,
        besides: list[int],
    ) -> list[ChunkHit]:
        """The nearest chunks, and the similarity of those in `besides`."""
        if not vectors:
            return []

        def read(db: Any) -> list[ChunkHit]:
            near: list[ChunkHit] = []
            others: list[ChunkHit] = []
            for numbers, vector in vectors:
                near += chunks.by_vector(db, numbers, vector, CANDIDATES, only)
                others += chunks.similarities(db, numbers, vector, besides)
            near = sorted(near, key=lambda hit: -hit.value)[:CANDIDATES]
            known = {hit.chunk for hit in near}
            return [*near, *(hit for hit in others if hit.chunk not in known)]

        return await self._archive.database.read_async(read)

    async def _passages(
        self, owner: str, order: list[int], query: str, by_vector: list[ChunkHit]
    ) -> list[Passage]:
        rows = await self._archive.database.read_async(lambda db: chunks.contents(db, owner, order))
        similarity = {hit.chunk: hit.value for hit in by_vector}
        found = [(rows[one], similarity.get(one)) for one in order if one in rows]
        return await asyncio.to_thread(_described, query, found)

    async def _ranker(self) -> str | None:
        """The cross-encoder that is installed, but for the one that judges answers."""
        ids = await self._chooser.with_task("rerank")
        return next((one for one in ids if one != self._settings.judge_model), None)

    async def _ranked_again(
        self, ranker: str, query: str, passages: list[Passage]
    ) -> list[Passage]:
        """The first passages in the order of a cross-encoder."""
        if len(passages) < 2:
            return passages
        first, rest = passages[:RERANKED], passages[RERANKED:]
        spec = RerankSpec(query=query, documents=[p.content for p in first], truncate=True)
        try:
            decision = await self._chooser.for_task("rerank", ranker)
            async with self._engines.lease(decision.model_id) as client:
                scores: Scores = await client.ask(spec)
        except ModelNotFound:
            return passages
        except EdgeAgentError as exc:
            logger.warning("search_not_reranked code=%s", exc.code)
            return passages
        ranked = [
            msgspec.structs.replace(passage, relevance=value)
            for passage, value in zip(first, scores.values, strict=True)
        ]
        return [*sorted(ranked, key=lambda p: -p.score), *rest]


def _cosines(made: Vectors) -> list[float]:
    """The cosine of the first vector to each other."""
    values, width = array("f", made.data), made.n_dimensions
    if sys.byteorder == "big":
        values.byteswap()
    first = values[:width]
    return [
        sum(map(mul, first, values[at : at + width])) for at in range(width, len(values), width)
    ]


async def _nothing() -> list[Any]:
    return []


def evidence_of(similarity: float | None, covered: float) -> float:
    """What a passage tells about a question, 0..1: by the nearness of the vectors, and less by the share of
    the question's words that it has; without vectors by the words alone."""
    if similarity is None:
        return covered
    nearness = max(0.0, min(1.0, similarity))
    return SIMILARITY_WEIGHT * nearness + (1 - SIMILARITY_WEIGHT) * covered


def _described(query: str, found: list[tuple[dict[str, Any], float | None]]) -> list[Passage]:
    wanted = content_words(query)
    passages = []
    for row, similarity in found:
        text = "\n".join(filter(None, (row["headings"], row["body"], row["answer"])))
        passages.append(
            Passage(
                chunk=row["chunk"], store_id=row["store_id"], file_id=row["document_id"],
                name=row["name"], attributes=msgspec.json.decode(row["attributes"]),
                headings=row["headings"], text=row["body"], answer=row["answer"], page=row["page"],
                evidence=round(evidence_of(similarity, coverage(wanted, text)), 4),
                similarity=similarity,
            )
        )  # fmt: skip
    return passages
