"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec

from edgeagent.agent import Agent
from edgeagent.api.schemas.common import ErrorBody
from edgeagent.api.schemas.models import ModelBody, ModelList
from edgeagent.errors import NotFound
from edgeagent.serving.models import ModelStatus


def _body(model: ModelStatus) -> ModelBody:
    return ModelBody(
        id=model.id,
        created=model.created,
        owned_by=model.owner,
        state=model.state,
        is_default=model.is_default,
        size_bytes=model.size_bytes,
        n_ctx=model.n_ctx,
        task=model.task,
    )


@get(
    "/v1/models",
    operation_id="models",
    summary="List the installed models",
    description="`task` says whether a model generates text or makes embeddings.",
    tags=["models"],
)
async def list_models(agent: Agent) -> ModelList:
    return ModelList(data=[_body(model) for model in await agent.listing()])


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
    return _body(agent.model(model_id.lstrip("/")))


_CHANGES = {
    404: ResponseSpec(ErrorBody, description="Unknown model"),
    503: ResponseSpec(ErrorBody, description="The model cannot be loaded now"),
    507: ResponseSpec(ErrorBody, description="The memory budget cannot hold the model"),
}


@post(
    "/v1/models/{path:path}",
    operation_id="change_model",
    summary="POST /v1/models/{id}/load or /v1/models/{id}/unload",
    description=(
        "`load` loads a model before it is asked for. `unload` ends its worker, and with it the requests "
        "that run on it; all its memory comes back."
    ),
    tags=["models"],
    status_code=200,
    responses=_CHANGES,
)
async def change_model(agent: Agent, path: str) -> ModelBody:
    # A path parameter of this kind takes the rest of the path, since ids may have slashes.
    model_id, _, action = path.strip("/").rpartition("/")
    if action == "load":
        return _body(await agent.load(model_id))
    if action == "unload":
        return _body(await agent.unload(model_id))
    raise NotFound(f"POST /v1/models{path} is nothing: end it with /load or /unload.")
