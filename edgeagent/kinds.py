"""What can be asked of each kind of model, and in which words."""

from __future__ import annotations

from typing import NamedTuple

from edgeagent.types import Task


class Kind(NamedTuple):
    """`does` completes "a model that ...", `path` is where it is asked, `small` a model of this kind to
    begin with."""

    does: str
    path: str
    small: str


KINDS: dict[Task, Kind] = {
    "generate": Kind("generates text", "/v1/chat/completions", "smollm2-135m-instruct"),
    "embed": Kind("makes embeddings", "/v1/embeddings", "all-minilm-l6-v2"),
    "rerank": Kind("ranks documents", "/v1/rerank", "jina-reranker-v1-tiny-en"),
}


def wrong_kind(model: str, task: Task, wanted: Task, able: list[str]) -> str:
    """What to say of a model that does `task` and was asked for what only those of `wanted` do."""
    others = f"choose one that does ({', '.join(able)})" if able else (
        f"`edgeagent models install {KINDS[wanted].small}` gets one that does"
    )  # fmt: skip
    return (
        f"Model {model!r} {KINDS[task].does}, it is none that {KINDS[wanted].does}: {others}, or POST "
        f"{KINDS[task].path}."
    )


def none_installed(wanted: Task) -> str:
    return (
        f"No model that {KINDS[wanted].does} is installed: `edgeagent models install "
        f"{KINDS[wanted].small}` gets a small one."
    )
