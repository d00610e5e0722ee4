"""The tool `file_search`, as a request offers it."""

from __future__ import annotations

from typing import Any

import msgspec


class FileSearch(msgspec.Struct, frozen=True, kw_only=True):
    """The tool as a request offers it. `declines`: thin evidence is told in place of an answer."""

    store_ids: list[str]
    n_results: int = 10
    least_score: float = 0.0
    filters: dict[str, Any] | None = None
    reranks: bool = True
    method: str = "hybrid"
    declines: bool = True
    nothing_found: str | None = None
