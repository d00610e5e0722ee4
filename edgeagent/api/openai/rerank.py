"""`POST /v1/rerank`, and the paths that vLLM, Cohere and Text Embeddings Inference use for it."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, origin_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.rerank import RerankAnswer, RerankRequest
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.types.unary_requests import RerankSpec, Scores


def encoded_ranking(scores: Scores, body: RerankRequest, model: str, answer_id: str) -> bytes:
    """The body of the answer. Documents of equal relevance keep their order."""
    order = sorted(range(len(scores.values)), key=lambda i: -scores.values[i])
    if body.texts is not None:
        return msgspec.json.encode(
            [
                {"index": index, "score": scores.values[index]}
                | ({"text": body.texts[index]} if body.return_text else {})
                for index in order[: body.top_n]
            ]
        )
    texts = body.inputs() if body.return_documents else None
    results: list[dict[str, Any]] = []
    for index in order[: body.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores.values[index]}
        if texts is not None:
            result["document"] = {"text": texts[index]}
        results.append(result)
    return msgspec.json.encode(
        {
            "id": answer_id,
            "model": model,
            "results": results,
            "usage": {"prompt_tokens": scores.n_prompt, "total_tokens": scores.n_prompt},
            "timings": {
                "queue_ms": round(scores.queue_ms, 3),
                "total_ms": round(scores.total_ms, 3),
            },
        }
    )


def _route(path: str, operation_id: str) -> HTTPRouteHandler:
    @post(
        path,
        operation_class=body_operation(RerankRequest),
        operation_id=operation_id,
        summary="Rank documents by their relevance to a query",
        description=(
            "By a cross-encoder, whose `task` in GET /v1/models is `rerank`; in the formats of Jina's "
            "and Cohere's APIs. A document that does not fit with the query is refused, unless `truncate` "
            "is true."
        ),
        tags=["embeddings"],
        status_code=200,
        responses={
            200: response_doc(RerankAnswer, description="The documents, the most relevant first"),
            400: response_doc(ErrorBody, description="The request is not valid"),
            404: response_doc(ErrorBody, description="Unknown model, or no ranking model"),
            429: response_doc(
                ErrorBody, description="The queue is full, or a limit of the key is reached"
            ),
            503: response_doc(ErrorBody, description="The model cannot answer now"),
        },
    )
    async def handle(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
        body = await read_body(request, RerankRequest)
        decision = await one_shots.chooser.for_task("rerank", body.model)
        spec = RerankSpec(
            query=body.query,
            documents=body.inputs(),
            max_tokens=body.max_tokens_per_doc,
            truncate=body.truncate,
        )
        origin = origin_of(request)
        return OneShotResponse(
            one_shots.ask(origin, decision, spec),
            lambda scores: encoded_ranking(
                scores, body, decision.model_id, f"rerank-{origin.request_id}"
            ),
        )

    return handle


HANDLERS = [
    _route("/v1/rerank", "rerank"),
    _route("/v2/rerank", "rerank_cohere"),
    _route("/rerank", "rerank_plain"),
]
