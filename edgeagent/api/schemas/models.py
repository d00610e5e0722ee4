"""Bodies of the model and system paths."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from edgeagent.types import Task


class ModelBody(BaseModel):
    """An installed model. `state` and what follows is our extension."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    state: Literal["loaded", "loading", "unloaded"]
    is_default: bool
    size_bytes: int
    n_ctx: int | None = None
    task: Task


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelBody]


class HealthBody(BaseModel):
    """The daemon's process is alive; says nothing of models."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyBody(BaseModel):
    """Whether a request would be answered now, and if not, why."""

    status: Literal["ready", "loading", "unavailable"]
    model: str | None
    reason: str | None = None
