"""One shape for each model that is installed, and whether a request would be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeagent.types.engine import Task
from edgeagent.types.template import TemplateFacts


@dataclass(frozen=True)
class ModelStatus:
    """One installed model and whether it is loaded. `created` in Unix seconds; `template` is what its chat
    template can show, None where nobody knows yet."""

    id: str
    created: int
    owner: str
    size_bytes: int
    state: Literal["loaded", "loading", "unloaded"]
    is_default: bool
    n_ctx: int | None
    task: Task
    aliases: tuple[str, ...] = ()
    template: TemplateFacts | None = None
    is_assistant: bool = False


@dataclass(frozen=True)
class Readiness:
    """Whether a request to the default model would be answered now, and if not, why."""

    status: Literal["ready", "loading", "unavailable"]
    model_id: str | None
    reason: str | None = None
