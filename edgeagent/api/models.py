"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import get
from litestar.openapi.datastructures import ResponseSpec

from edgeagent.agent import Agent, ModelStatus
from edgeagent.api.schemas.common import ErrorBody
from edgeagent.api.schemas.models import ModelBody, ModelList
from edgeagent.errors import ModelNotFound


def _body(model: ModelStatus) -> ModelBody:
    return ModelBody(
        id=model.id,
        created=model.created,
        owned_by=model.owner,
        state=model.state,
        is_default=model.is_default,
        size_bytes=model.size_bytes,
        n_ctx=model.n_ctx,
    )


@get(
    "/v1/models",
    operation_id="models",
    summary="List the installed models",
    tags=["models"],
    sync_to_thread=False,
)
def list_models(agent: Agent) -> ModelList:
    return ModelList(data=[_body(model) for model in agent.models()])


@get(
    "/v1/models/{model_id:path}",
    operation_id="model",
    summary="One installed model",
    description="Ids with slashes resolve as they are.",
    tags=["models"],
    responses={404: ResponseSpec(ErrorBody, description="Unknown model")},
    sync_to_thread=False,
)
def get_model(agent: Agent, model_id: str) -> ModelBody:
    wanted = model_id.lstrip("/")
    decision = agent.route(wanted)
    for model in agent.models():
        if model.id == decision.model_id:
            return _body(model)
    raise ModelNotFound(
        f"Model {wanted!r} is not installed: GET /v1/models lists those that are.", param="model"
    )
