"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import msgspec
from litestar import post
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, origin_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.embeddings import EmbeddingAnswer, EmbeddingRequest
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.types.unary_requests import EmbedSpec, Vectors

_encode = msgspec.json.encode


def encoded_vectors(vectors: Vectors, model: str, encoding_format: str) -> bytes:
    """The body of the answer. Encoded vector by vector, so that other threads can run in between."""
    n_bytes = 4 * vectors.n_dimensions
    items = []
    for index, start in enumerate(range(0, len(vectors.data), n_bytes)):
        raw = vectors.data[start : start + n_bytes]
        numbers: Any = array("f", raw).tolist() if encoding_format == "float" else (
            base64.b64encode(raw).decode()
        )  # fmt: skip
        items.append(_encode({"object": "embedding", "index": index, "embedding": numbers}))
    tail = {
        "model": model,
        "usage": {"prompt_tokens": vectors.n_prompt, "total_tokens": vectors.n_prompt},
        "timings": {
            "queue_ms": round(vectors.queue_ms, 3),
            "total_ms": round(vectors.total_ms, 3),
        },
    }
    return b'{"object":"list","data":[' + b",".join(items) + b"]," + _encode(tail)[1:]


@post(
    "/v1/embeddings",
    operation_class=body_operation(EmbeddingRequest),
    operation_id="embed",
    summary="Turn texts into vectors",
    description=(
        "One vector of length 1 for each input, from a model whose `task` in GET /v1/models is `embed`. "
        "A text longer than the model's context is refused, unless `truncate` is true."
    ),
    tags=["embeddings"],
    status_code=200,
    responses={
        200: response_doc(EmbeddingAnswer, description="The vectors"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="Unknown model, or no embedding model"),
        429: response_doc(
            ErrorBody, description="The queue is full, or a limit of the key is reached"
        ),
        503: response_doc(ErrorBody, description="The model cannot answer now"),
    },
)
async def embed(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, EmbeddingRequest)
    decision = await one_shots.chooser.for_task("embed", body.model)
    spec = EmbedSpec(inputs=body.inputs(), dimensions=body.dimensions, truncate=body.truncate)
    return OneShotResponse(
        one_shots.ask(origin_of(request), decision, spec),
        lambda vectors: encoded_vectors(
            vectors, decision.model_id, body.encoding_format or "float"
        ),
    )
