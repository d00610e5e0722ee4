"""The tool `file_search`, as a request offers it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

OnThinEvidence = Literal["decline", "answer", "router", "human"]
Answers = Literal["model", "quotes"]


class FileSearch(msgspec.Struct, frozen=True, kw_only=True):
    """The tool as a request offers it. `on_thin_evidence`: what happens where the documents tell nothing;
    None: as the settings say. `answers`: written by the model, or sentences of the documents."""

    store_ids: list[str]
    n_results: int = 10
    least_score: float = 0.0
    filters: dict[str, Any] | None = None
    reranks: bool = True
    method: str = "hybrid"
    on_thin_evidence: OnThinEvidence | None = None
    nothing_found: str | None = None
    answers: Answers = "model"
