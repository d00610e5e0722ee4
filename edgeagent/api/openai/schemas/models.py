"""Bodies of the paths for models and the system."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.types.engine_config import Task
from edgeagent.types.template import TemplateFacts, TemplateSource
from edgeagent.types.throttle import Reason


class TemplateBody(BodyModel):
    """What a chat template supports by itself; requests are adapted to what it lacks.

    `source` null: the model has no working template. `late_system`: a system message after others;
    `neighbours`: two messages of one role in a row; `thinking`: reasoning can be turned off; `reasoning`:
    it is marked; `prefill`: an answer can be continued; `problem`: what is wrong with the model's own
    template.
    """

    source: TemplateSource | None
    call_syntax: str
    system: bool
    late_system: bool
    neighbours: bool
    assistant_first: bool
    tools: bool
    tool_results: bool
    thinking: bool
    reasoning: bool
    prefill: bool
    problem: str | None


def template_body(facts: TemplateFacts | None) -> TemplateBody | None:
    if facts is None:
        return None
    told = {name: getattr(facts, name) for name in TemplateBody.model_fields}
    return TemplateBody(**told | {"source": facts.source if facts.can_chat else None})


class ModelBody(BodyModel):
    """An installed model. `state` and the fields after it are our extension."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    state: Literal["loaded", "loading", "unloaded"]
    is_default: bool
    size_bytes: int
    n_ctx: int | None = None
    task: Task
    aliases: list[str] = Field(default_factory=list)
    alias_of: str | None = None
    capabilities: list[str] | None = Field(
        default=None, description="as in /api/show; null until the model has been loaded once"
    )
    chat_template: TemplateBody | None = None
    is_route: bool = Field(
        default=False, description="a name such as `auto`, for which each request gets a model"
    )
    parent: str | None = Field(
        default=None,
        description="the model that a LoRA adapter changes; such an entry is an adapter",
    )
    is_upstream: bool = Field(
        False, description="answered by an engine elsewhere (`[[routing.upstreams]]`)"
    )


class AnthropicModel(BodyModel):
    """An installed model in Anthropic's format. Its publication date is unknown: `created_at` is the time
    of its file."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class AnthropicModelList(BodyModel):
    data: list[AnthropicModel]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


class ModelList(BodyModel):
    object: Literal["list"] = "list"
    data: list[ModelBody]


class HealthBody(BodyModel):
    """The daemon's process is alive. Says nothing about models."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyBody(BodyModel):
    """Whether a request would be answered now, and if not, why. `degraded` names what makes answers slower
    than usual: other programs, heat, a low battery."""

    status: Literal["ready", "loading", "unavailable"]
    model: str | None
    reason: str | None = None
    degraded: tuple[Reason, ...] = ()
