"""Ollama's paths for models: `/api/tags`, `/api/ps`, `/api/show`, `/api/embed`, `/api/version`.

Models are never installed or removed over HTTP: such requests are refused with the command for it.
"""

from __future__ import annotations

import datetime
from array import array
from typing import Any

import msgspec
from litestar import HttpMethod, MediaType, Response, get, head, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, origin_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.ollama.chat import written
from edgeagent.api.ollama.chat_schemas import OllamaError, plain_name
from edgeagent.api.ollama.model_schemas import (
    Details,
    EmbedAnswer,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EmbedRequest,
    LoadedList,
    LoadedModel,
    ModelDetails,
    ModelListing,
    ShowRequest,
    TagList,
    TemplateDetails,
    VersionBody,
)
from edgeagent.api.openai.schemas.models import template_body
from edgeagent.errors import BadRequest
from edgeagent.routing.model_tasks import capabilities
from edgeagent.serving.model_cards import LoadedCard, ModelCards, ShownModel
from edgeagent.serving.models import ModelAdmin
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.types.model_summary import ModelSummary, upstream_summary
from edgeagent.types.sampling import Sampling
from edgeagent.types.unary_requests import EmbedSpec, Vectors
from edgeagent.types.version import VERSION

# Clients refuse servers that are older than they need.
API_VERSION = "0.12.0"
_TAGS = ["ollama"]
_encode = msgspec.json.encode
# Means "stays loaded": a time in the far future.
_NEVER = datetime.datetime(2318, 1, 1, tzinfo=datetime.UTC)
_ERRORS = {
    400: response_doc(OllamaError, description="The request is not valid"),
    404: response_doc(OllamaError, description="Unknown model"),
}


@get(
    "/api/tags",
    operation_id="ollama_tags",
    summary="List the installed models, in Ollama's format",
    description="The models that answer elsewhere follow, as far as the key may use them; `size` is 0.",
    tags=_TAGS,
)
async def tags(request: ApiRequest, models: ModelAdmin, cards: ModelCards) -> TagList:
    found = await cards.all()
    found += map(upstream_summary, models.upstream_models(origin_of(request)))
    return TagList(models=[_tagged(card) for card in found])


@get("/api/ps", operation_id="ollama_ps", summary="List the loaded models, in Ollama's format",
     tags=_TAGS)  # fmt: skip
async def ps(cards: ModelCards) -> LoadedList:
    return LoadedList(models=[_loaded(found) for found in await cards.loaded()])


@post(
    "/api/show",
    operation_class=body_operation(ShowRequest),
    operation_id="ollama_show",
    summary="Show a model, in Ollama's format",
    tags=_TAGS,
    status_code=200,
    responses=_ERRORS | {200: response_doc(ModelDetails, description="The model")},
)
async def show(request: ApiRequest, models: ModelAdmin, cards: ModelCards) -> ModelDetails:
    body = await read_body(request, ShowRequest)
    name = plain_name(body.wanted)
    if name in models.upstream_models(origin_of(request)):
        return _shown_elsewhere(name)
    shown = await cards.shown(name)
    card = shown.card
    return ModelDetails(
        modelfile=f"FROM {card.id}",
        parameters=_parameters(shown.sampling),
        license=card.licence,
        details=_details(card),
        model_info=shown.header,
        capabilities=_capabilities(shown, models),
        edgeagent=TemplateDetails(chat_template=template_body(card.template)),
        modified_at=_time(card.modified_s),
    )


@post(
    "/api/embed",
    operation_class=body_operation(EmbedRequest),
    operation_id="ollama_embed",
    summary="Turn texts into vectors, in Ollama's format",
    tags=_TAGS,
    status_code=200,
    responses=_ERRORS | {200: response_doc(EmbedAnswer, description="The vectors")},
)
async def embed(request: ApiRequest, models: ModelAdmin, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, EmbedRequest)
    decision = await one_shots.chooser.for_task("embed", plain_name(body.model))
    inputs = body.inputs()
    if not inputs:
        await models.load(decision.model_id)
        return _json({"model": body.model, "embeddings": []})
    spec = EmbedSpec(inputs=inputs, dimensions=body.dimensions, truncate=body.truncate is not False)
    return OneShotResponse(
        one_shots.ask(origin_of(request), decision, spec),
        lambda vectors: _encode({
            "model": body.model,
            "embeddings": _rows(vectors),
            "total_duration": round(vectors.total_ms * 1e6),
            "load_duration": 0,
            "prompt_eval_count": vectors.n_prompt,
        }),
    )  # fmt: skip


@post(
    "/api/embeddings",
    operation_class=body_operation(EmbeddingsRequest),
    operation_id="ollama_embeddings",
    summary="Turn a text into a vector, in Ollama's older format",
    tags=_TAGS,
    status_code=200,
    responses=_ERRORS | {200: response_doc(EmbeddingsAnswer, description="The vector")},
)
async def embeddings(request: ApiRequest, models: ModelAdmin, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, EmbeddingsRequest)
    decision = await one_shots.chooser.for_task("embed", plain_name(body.model))
    if not body.prompt:
        await models.load(decision.model_id)
        return _json({"embedding": []})
    return OneShotResponse(
        one_shots.ask(origin_of(request), decision, EmbedSpec(inputs=[body.prompt], truncate=True)),
        lambda vectors: _encode({"embedding": _rows(vectors)[0]}),
    )


@get("/api/version", operation_id="ollama_version", summary="The version of Ollama's API",
     tags=_TAGS, sync_to_thread=False)  # fmt: skip
def version() -> VersionBody:
    return VersionBody(version=API_VERSION, edgeagent=VERSION)


_WHO = "edgeagent is running"


@get(
    "/",
    operation_id="root",
    summary="Whether the daemon is running",
    description="The first request of Ollama's clients.",
    tags=["system"],
    sync_to_thread=False,
)
def root() -> Response[str]:
    return Response(_WHO, media_type=MediaType.TEXT)


@head(
    "/",
    operation_id="root_head",
    summary="Whether the daemon is running",
    tags=["system"],
    sync_to_thread=False,
)
def root_head() -> None:
    return None


# Requests that change the installed models: method, path below /api, and the command for it.
_REFUSED: tuple[tuple[HttpMethod, str, str], ...] = (
    (HttpMethod.POST, "pull", "`edgeagent models install MODEL`"),
    (HttpMethod.POST, "push", "`edgeagent bundle create`, which packs models into a file"),
    (HttpMethod.POST, "create", "`edgeagent models install FILE.gguf`"),
    (HttpMethod.POST, "copy", "`edgeagent models install FILE.gguf` with the other name"),
    (HttpMethod.DELETE, "delete", "`edgeagent models remove MODEL`"),
    (HttpMethod.POST, "blobs/{digest:str}", "`edgeagent models install FILE.gguf`"),
)


def _refusal(method: HttpMethod, path: str, command: str) -> HTTPRouteHandler:
    name = path.split("/")[0]

    @route(
        f"/api/{path}",
        http_method=method,
        operation_id=f"ollama_{name}",
        summary=f"Refused: use {command} on the device",
        description="Models are installed and removed on the device, not over HTTP.",
        tags=_TAGS,
        status_code=400,
        responses={400: response_doc(OllamaError, description="The command that does it")},
        sync_to_thread=False,
    )
    def refuse() -> None:
        raise BadRequest(
            f"/api/{name} changes the installed models, which is not possible over HTTP: on the device, "
            f"use {command}."
        )

    return refuse


def _shown_elsewhere(name: str) -> ModelDetails:
    """A model of an upstream: what it can do is known, what it is made of is not."""
    card = upstream_summary(name)
    return ModelDetails(
        modelfile=f"FROM {card.id}",
        parameters="",
        license="",
        details=_details(card),
        model_info={},
        capabilities=["completion", "tools"],
        modified_at=_time(card.modified_s),
    )


def _capabilities(shown: ShownModel, models: ModelAdmin) -> list[str]:
    card = shown.card
    is_assistant = card.task == "generate" and models.is_assistant(card.id)
    found = capabilities(
        card.task, card.template, is_assistant=is_assistant, has_template=shown.has_chat_template
    )
    return found or []


def _json(value: Any) -> ASGIResponse:
    return ASGIResponse(body=_encode(value), media_type="application/json")


def _rows(vectors: Vectors) -> list[list[float]]:
    n_bytes = 4 * vectors.n_dimensions
    return [
        array("f", vectors.data[start : start + n_bytes]).tolist()
        for start in range(0, len(vectors.data), n_bytes)
    ]


def _tagged(card: ModelSummary) -> ModelListing:
    name = f"{card.id}:latest"
    return ModelListing(
        name=name,
        model=name,
        modified_at=_time(card.modified_s),
        size=card.size_bytes,
        digest=card.sha256,
        details=_details(card),
    )


def _loaded(found: LoadedCard) -> LoadedModel:
    name = f"{found.card.id}:latest"
    return LoadedModel(
        name=name,
        model=name,
        size=found.n_bytes,
        digest=found.card.sha256,
        details=_details(found.card),
        expires_at=_time(found.unload_s) if found.unload_s is not None else written(_NEVER),
        context_length=found.n_ctx,
    )


def _details(card: ModelSummary) -> Details:
    return Details(
        family=card.family,
        families=[card.family] if card.family else [],
        parameter_size=size_in_words(card.n_params),
        quantization_level=card.quant,
    )


def size_in_words(n_params: int) -> str:
    """A number of parameters in the style of model names: 135M, 1.5B; empty for 0."""
    if n_params >= 1_000_000_000:
        return f"{n_params / 1e9:.1f}B"
    return f"{n_params / 1e6:.4g}M" if n_params else ""


def _time(unix_s: float) -> str:
    return written(datetime.datetime.fromtimestamp(unix_s, datetime.UTC))


def _parameters(sampling: Sampling) -> str:
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
    return "\n".join(f"{name:<30} {getattr(sampling, name):g}" for name in names)


HANDLERS = [
    tags, ps, show, embed, embeddings, version, root, root_head,
    *(_refusal(*refused) for refused in _REFUSED),
]  # fmt: skip
