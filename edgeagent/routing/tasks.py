"""What can be asked of each kind of model, and in which words."""

from __future__ import annotations

from typing import NamedTuple

from edgeagent.types.engine import Task
from edgeagent.types.template import TemplateFacts


class TaskWords(NamedTuple):
    """`does` completes "a model that ...", `path` is where it is asked, `small` a model of this kind to
    begin with."""

    does: str
    path: str
    small: str


KINDS: dict[Task, TaskWords] = {
    "generate": TaskWords("generates text", "/v1/chat/completions", "smollm2-135m-instruct"),
    "embed": TaskWords("makes embeddings", "/v1/embeddings", "all-minilm-l6-v2"),
    "rerank": TaskWords("ranks documents", "/v1/rerank", "jina-reranker-v1-tiny-en"),
    "transcribe": TaskWords("transcribes speech", "/v1/audio/transcriptions", "whisper-tiny.en"),
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


def capabilities(
    task: Task, template: TemplateFacts | None, *, is_assistant: bool, has_template: bool | None
) -> list[str] | None:
    """What a model does for a client, in Ollama's words; None where that is not known yet.

    `has_template` is what the model's file says, for a template that nobody has tried. A model that was not
    taught tools is told of them by our own prompt, so any that chats calls them; an assistant model calls
    its own and none of a client's.
    """
    if task != "generate":
        return ["embedding"] if task == "embed" else []
    if is_assistant:
        return ["completion"]
    if template is None:
        if has_template is None:
            return None
        return ["completion", "tools"] if has_template else ["completion"]
    found = {
        "completion": True,
        "tools": template.can_chat,
        "insert": template.insert,
        "thinking": template.can_chat and (template.thinking or template.reasoning),
    }
    return [name for name, does in found.items() if does]
