"""What callers ask of knowledge bases, and what is found. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgeagent.knowledge.document import below
from edgeagent.store.sql import now_ms

DAY_MS = 86_400_000


class FileWish(msgspec.Struct, frozen=True, kw_only=True):
    """A document for a store. `sizes`: largest chunk and overlap in tokens; None: as the settings say."""

    document_id: str
    attributes: dict[str, Any] = {}
    sizes: tuple[int, int] | None = None


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was found. `similarity` is the cosine of the vectors, `evidence` 0..1 what it tells about
    the question, `relevance` that of the cross-encoder."""

    chunk: int
    store_id: str
    file_id: str
    name: str
    attributes: dict[str, Any]
    headings: str
    text: str
    answer: str | None
    page: int | None
    evidence: float
    similarity: float | None = None
    relevance: float | None = None

    @property
    def score(self) -> float:
        return self.evidence if self.relevance is None else self.relevance

    @property
    def content(self) -> str:
        """All of it, as it is shown and read."""
        return below(self.headings, self.body)

    @property
    def body(self) -> str:
        """It without its headings."""
        return f"{self.text}\n{self.answer}" if self.answer is not None else self.text

    @property
    def told(self) -> str:
        """What it tells: the answer of a stored question, else its text."""
        return self.answer if self.answer is not None else self.text

    @property
    def about(self) -> str:
        """What precedes that: its headings, and a stored question."""
        return f"{self.headings}\n{self.text}" if self.answer is not None else self.headings


class SearchWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for. `method`: which of the lists are used."""

    query: str
    store_ids: Sequence[str]
    n_results: int = 10
    least_score: float = 0.0
    filters: dict[str, Any] | None = None
    reranks: bool = True
    method: str = "hybrid"  # hybrid | words | vectors


def expires_ms(store: dict[str, Any]) -> int | None:
    """When a store ends; None: never."""
    days = store["expires_days"]
    return None if days is None else int(store["used_ms"] + days * DAY_MS)


def is_expired(store: dict[str, Any]) -> bool:
    ends_ms = expires_ms(store)
    return ends_ms is not None and ends_ms < now_ms()
