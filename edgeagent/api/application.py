"""The Litestar application: all routes, their dependencies, and the OpenAPI page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from pydantic import BaseModel

from edgeagent.api.admin import data, keys
from edgeagent.api.anthropic import messages
from edgeagent.api.bots import bots
from edgeagent.api.http import errors, health, metrics
from edgeagent.api.http.docs_page import DocsPlugin, JsonPlugin
from edgeagent.api.http.error_docs import document_errors
from edgeagent.api.http.litestar_app import Application
from edgeagent.api.ollama import chat as ollama
from edgeagent.api.ollama import models as ollama_models
from edgeagent.api.openai import (
    audio,
    audio_jobs,
    batches,
    chat,
    completions,
    conversations,
    embeddings,
    files,
    models,
    parameter_support,
    realtime,
    rerank,
    responses,
    responses_stored,
    stored_chats,
    tokenize,
    transcripts,
    vector_store_files,
    vector_stores,
)
from edgeagent.types.version import VERSION

ROUTES = [
    chat.chat,
    chat.count_chat_tokens,
    completions.complete,
    embeddings.embed,
    *rerank.HANDLERS,
    *audio.HANDLERS,
    *audio_jobs.HANDLERS,
    *transcripts.HANDLERS,
    *realtime.HANDLERS,
    tokenize.tokenize,
    tokenize.detokenize,
    tokenize.tokenizer_info,
    models.list_models,
    models.get_model,
    models.change_model,
    keys.create_key,
    keys.list_keys,
    keys.revoke_key,
    keys.rotate_key,
    health.health,
    health.ready,
    metrics.metrics,
    metrics.recent_requests,
    parameter_support.show_conformance,
    *messages.HANDLERS,
    *ollama.HANDLERS,
    *ollama_models.HANDLERS,
    *stored_chats.HANDLERS,
    *responses.HANDLERS,
    *responses_stored.HANDLERS,
    *conversations.HANDLERS,
    *files.HANDLERS,
    *batches.HANDLERS,
    *vector_stores.HANDLERS,
    *vector_store_files.HANDLERS,
    *bots.HANDLERS,
    *data.HANDLERS,
]
document_errors(ROUTES)

Hook = Callable[[], Awaitable[None]]


def application(
    parts: Mapping[str, Any], *, on_startup: Sequence[Hook], on_shutdown: Sequence[Hook]
) -> Litestar:
    """The routes over the parts of one daemon, which handlers receive by name."""
    document = JsonPlugin()
    return Application(
        route_handlers=[*ROUTES, *realtime.SOCKETS],
        dependencies={name: _provide(part) for name, part in parts.items()},
        exception_handlers={Exception: errors.respond},
        # The document quotes default values of models.
        type_encoders={BaseModel: lambda model: model.model_dump(mode="json")},
        on_startup=list(on_startup),
        on_shutdown=list(on_shutdown),
        openapi_config=OpenAPIConfig(
            title="edgeagent",
            version=VERSION,
            description="OpenAI-compatible API of small language models on this device.",
            render_plugins=[DocsPlugin(document), document],
            components=Components(
                security_schemes={
                    "key": SecurityScheme(
                        type="http", scheme="bearer", description="An API key, `ea_...`."
                    )
                }
            ),
            security=[{"key": []}],
        ),
        logging_config=None,
        request_max_body_size=None,  # host_and_origin.py checks the size, with our own error
    )


def _provide(part: Any) -> Provide:
    return Provide(lambda: part, sync_to_thread=False)
