"""The tool `file_search`, as a request offers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edgeagent.errors import Unavailable
from edgeagent.routing.decision import Decision

if TYPE_CHECKING:
    from edgeagent.serving.chat import ChatInput
    from edgeagent.serving.model_choice import ModelChooser
    from edgeagent.serving.request_origin import RequestOrigin

NO_MODEL = "none"  # told as the model of an answer where no text model is installed
OnThinEvidence = Literal["decline", "answer", "router", "human"]
Answers = Literal["model", "quotes"]


class FileSearch(msgspec.Struct, frozen=True, kw_only=True):
    """The tool as a request offers it. `on_thin_evidence`: what happens where the documents tell nothing;
    None: as the settings say, as with `sure_evidence`, `sure_answerability` and `least_answerability`.
    `nothing_found` is said then, `not_sure` before quotes that tell little. `answers`: written by the
    model, or sentences of the documents."""

    store_ids: list[str]
    n_results: int = 10
    least_score: float = 0.0
    filters: dict[str, Any] | None = None
    reranks: bool = True
    method: str = "hybrid"
    on_thin_evidence: OnThinEvidence | None = None
    nothing_found: str | None = None
    not_sure: str | None = None
    sure_evidence: float | None = None
    sure_answerability: float | None = None
    least_answerability: float | None = None
    answers: Answers = "model"


def decision_of(
    chooser: ModelChooser, origin: RequestOrigin, chat: ChatInput, tool: FileSearch | None
) -> Decision:
    """The model of a turn. Answers that are sentences of documents need none: `NO_MODEL` stands for it where
    no text model is installed. Raises as `ModelChooser.for_text`."""
    try:
        return chooser.for_text(chat.model, origin, metadata=chat.metadata)
    except Unavailable:
        if tool is None or tool.answers != "quotes":
            raise
        return Decision(NO_MODEL, "default")
