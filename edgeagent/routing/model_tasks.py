"""The tasks of models, and the words for them in errors and listings."""

from __future__ import annotations

from typing import NamedTuple

from edgeagent.types.engine_config import Task
from edgeagent.types.template import TemplateFacts


class TaskWords(NamedTuple):
    """`does` completes "a model that ...", `path` is the endpoint of the task, `small` a small model for
    it."""

    does: str
    path: str
    small: str


TASK_WORDS: dict[Task, TaskWords] = {
    "generate": TaskWords("generates text", "/v1/chat/completions", "smollm2-135m-instruct"),
    "embed": TaskWords("makes embeddings", "/v1/embeddings", "all-minilm-l6-v2"),
    "rerank": TaskWords("ranks documents", "/v1/rerank", "jina-reranker-v1-tiny-en"),
    "transcribe": TaskWords("transcribes speech", "/v1/audio/transcriptions", "whisper-tiny.en"),
}


def wrong_kind(model: str, task: Task, wanted: Task, able: list[str]) -> str:
    """The message for a model of `task` that is asked for `wanted`; `able` are the models that can."""
    others = f"choose one that does ({', '.join(able)})" if able else (
        f"`edgeagent models install {TASK_WORDS[wanted].small}` installs one that does"
    )  # fmt: skip
    return (
        f"Model {model!r} {TASK_WORDS[task].does}, and the request needs one that {TASK_WORDS[wanted].does}: "
        f"{others}, or POST {TASK_WORDS[task].path}."
    )


def none_installed(wanted: Task) -> str:
    return (
        f"No model that {TASK_WORDS[wanted].does} is installed: `edgeagent models install "
        f"{TASK_WORDS[wanted].small}` installs a small one."
    )


def capabilities(
    task: Task, template: TemplateFacts | None, *, is_assistant: bool, has_template: bool | None
) -> list[str] | None:
    """The capabilities of a model in Ollama's terms; None where they are not known yet.

    `has_template` is what the file of the model says, for a template that has not been tried. A model
    without training for tools gets our own prompt for them, so that every chat model has tools; an
    assistant model has its own tools and takes none of a client.
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
