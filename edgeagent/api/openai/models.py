"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

import datetime
from typing import Any

from litestar import Request, get, post

from edgeagent.api.http.caller import ApiRequest, origin_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.models import (
    AnthropicModel,
    AnthropicModelList,
    ModelBody,
    ModelList,
    template_body,
)
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.errors import NotFound
from edgeagent.routing.model_tasks import capabilities
from edgeagent.serving.models import ModelAdmin, ModelStatus

ANTHROPIC_VERSION = "anthropic-version"


def _body(model: ModelStatus, alias: str | None = None) -> ModelBody:
    """A model, or one of its aliases shown as a model."""
    return ModelBody(
        id=alias or model.id,
        created=model.created,
        owned_by=model.owner,
        state=model.state,
        is_default=model.is_default and alias is None,
        size_bytes=model.size_bytes,
        n_ctx=model.n_ctx,
        task=model.task,
        aliases=[] if alias else list(model.aliases),
        alias_of=model.id if alias else None,
        parent=model.base,
        capabilities=capabilities(
            model.task, model.template, is_assistant=model.is_assistant, has_template=None
        ),
        chat_template=template_body(model.template),
    )


def _route_body(name: str) -> ModelBody:
    """A route, shown as a model that generates text."""
    return ModelBody(
        id=name, created=0, owned_by="edgeagent", state="unloaded", is_default=False, size_bytes=0,
        task="generate", is_route=True,
    )  # fmt: skip


def _upstream_body(name: str) -> ModelBody:
    """A model that answers elsewhere."""
    return ModelBody(
        id=name, created=0, owned_by="upstream", state="loaded", is_default=False, size_bytes=0,
        task="generate", is_upstream=True,
    )  # fmt: skip


def _for_anthropic(body: ModelBody) -> AnthropicModel:
    created = datetime.datetime.fromtimestamp(body.created, datetime.UTC)
    return AnthropicModel(
        id=body.id,
        display_name=body.id,
        created_at=created.isoformat().replace("+00:00", "Z"),
        max_input_tokens=body.n_ctx,
    )


@get(
    "/v1/models",
    operation_id="models",
    summary="List the installed models",
    description=(
        "`task` tells whether a model generates text, makes embeddings or ranks. Plain aliases are "
        "listed too, LoRA adapters (`parent` is their model), the routes (`is_route`) and the models "
        "elsewhere (`is_upstream`) that the key may use. "
        "With the header `anthropic-version`, in Anthropic's format."
    ),
    tags=["models"],
)
async def list_models(request: ApiRequest, models: ModelAdmin) -> ModelList | AnthropicModelList:
    found = await models.listing()
    bodies = [_body(model) for model in found]
    bodies += [_body(model, alias) for model in found for alias in model.plain_aliases]
    bodies += map(_route_body, models.routes(origin_of(request)))
    bodies += map(_upstream_body, models.upstream_models(origin_of(request)))
    if ANTHROPIC_VERSION not in request.headers:
        return ModelList(data=bodies)
    data = [_for_anthropic(body) for body in bodies]
    first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
    return AnthropicModelList(data=data, first_id=first_id, last_id=last_id)


@get(
    "/v1/models/{model_id:path}",
    operation_id="model",
    summary="One installed model",
    description=(
        "Ids may have slashes; aliases resolve to their models. With the header "
        "`anthropic-version`, in Anthropic's format."
    ),
    tags=["models"],
    responses={404: response_doc(ErrorBody, description="Unknown model")},
    sync_to_thread=False,
)
def get_model(
    request: Request[Any, Any, Any], models: ModelAdmin, model_id: str
) -> ModelBody | AnthropicModel:
    name = model_id.lstrip("/")
    is_elsewhere = name in models.upstream_models(origin_of(request))
    body = _upstream_body(name) if is_elsewhere else _body(models.model(name))
    return _for_anthropic(body) if ANTHROPIC_VERSION in request.headers else body


_CHANGES = {
    404: response_doc(ErrorBody, description="Unknown model"),
    503: response_doc(ErrorBody, description="The model cannot be loaded now"),
    507: response_doc(ErrorBody, description="The memory budget cannot hold the model"),
}


@post(
    "/v1/models/{path:path}",
    operation_id="change_model",
    summary="POST /v1/models/{id}/load or /v1/models/{id}/unload",
    description=(
        "`load` loads a model before its first request. `unload` ends its worker, and with it the requests "
        "that run on it; all its memory is released."
    ),
    tags=["models"],
    status_code=200,
    responses=_CHANGES,
)
async def change_model(models: ModelAdmin, path: str) -> ModelBody:
    # A `path` parameter takes the rest of the path, since ids may have slashes.
    model_id, _, action = path.strip("/").rpartition("/")
    if action == "load":
        return _body(await models.load(model_id))
    if action == "unload":
        return _body(await models.unload(model_id))
    raise NotFound(f"POST /v1/models{path} does not exist: end the path with /load or /unload.")
