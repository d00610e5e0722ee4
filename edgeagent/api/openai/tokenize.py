"""`POST /tokenize` and `POST /detokenize`: a model's vocabulary, in the formats of llama.cpp's server and
of vLLM."""

from __future__ import annotations

import msgspec
from litestar import get, post
from litestar.types import ASGIApp

from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, origin_of
from edgeagent.api.http.one_shot_response import OneShotResponse
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.embeddings import (
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizeRequest,
    TokenizerInfo,
)
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.routing.decision import Decision
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.types.unary_requests import DetokenizeSpec, TokenizeSpec


@get(
    "/tokenizer_info",
    operation_id="tokenizer_info",
    summary="Facts about a vocabulary for evaluation harnesses, in vLLM's format (extension)",
    description="Of the model in the query, or the default one. Loads the model.",
    tags=["tokens"],
    responses={404: response_doc(ErrorBody, description="Unknown model")},
)
async def tokenizer_info(one_shots: OneShotService, model: str = "default") -> TokenizerInfo:
    model_id = one_shots.chooser.model_id(model)
    facts = await one_shots.engine_facts(Decision(model_id, "named"))
    return TokenizerInfo(
        bos_token=facts.bos_token,
        eos_token=facts.eos_token,
        chat_template=facts.chat_template,
        model_max_length=facts.n_ctx_slot,
        vocab_size=facts.n_vocab,
    )


_encode = msgspec.json.encode
_ERRORS = {
    400: response_doc(ErrorBody, description="The request is not valid"),
    404: response_doc(ErrorBody, description="Unknown model"),
    503: response_doc(ErrorBody, description="The model cannot answer now"),
}


@post(
    "/tokenize",
    operation_class=body_operation(TokenizeRequest),
    operation_id="tokenize",
    summary="Tokenize a text (extension)",
    tags=["tokens"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(TokenizeAnswer, description="The token ids")},
)
async def tokenize(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, TokenizeRequest)
    decision = one_shots.chooser.for_any_task(body.model)
    facts = await one_shots.engine_facts(decision)
    spec = TokenizeSpec(
        text=body.text, add_special=body.adds_special, parse_special=body.parse_special
    )
    known = {"max_model_len": facts.n_ctx_slot, "model": decision.model_id}
    return OneShotResponse(
        one_shots.ask(origin_of(request), decision, spec),
        lambda tokens: _encode({"tokens": tokens, "count": len(tokens)} | known),
    )


@post(
    "/detokenize",
    operation_class=body_operation(DetokenizeRequest),
    operation_id="detokenize",
    summary="Detokenize tokens (extension)",
    tags=["tokens"],
    status_code=200,
    responses=_ERRORS | {200: response_doc(DetokenizeAnswer, description="The text")},
)
async def detokenize(request: ApiRequest, one_shots: OneShotService) -> ASGIApp:
    body = await read_body(request, DetokenizeRequest)
    decision = one_shots.chooser.for_any_task(body.model)
    return OneShotResponse(
        one_shots.ask(origin_of(request), decision, DetokenizeSpec(tokens=body.tokens)),
        lambda text: _encode({"content": text, "prompt": text, "model": decision.model_id}),
    )
