"""The fields that the request bodies of chats, completions and responses share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField, RequestModel
from edgeagent.errors import InvalidParameter
from edgeagent.types.sampling import Sampling

MAX_STOPS = 16
MAX_LOGIT_BIAS = 1024

StopText = Annotated[str, Field(min_length=1, max_length=256)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
# Keys of JSON objects are strings; no vocabulary has larger token ids.
BiasedToken = Annotated[int, Field(ge=0, lt=1 << 31, strict=False)]


class StreamOptions(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: Annotated[bool | None, IgnoredField()] = None


class GenerationRequest(RequestModel):
    """Fields for sampling, length and streaming. Unknown fields are refused with the nearest known name."""

    model: str | None = Field(
        None, max_length=200, description="a model id, `default`, `auto` or another route"
    )
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=16, description="how many answers")
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: Annotated[dict[BiasedToken, Bias], Field(max_length=MAX_LOGIT_BIAS)] | None = None
    user: Annotated[str | None, IgnoredField()] = None
    # Beyond OpenAI's API: the filters of llama.cpp.
    top_k: Annotated[int | None, ExtensionField("0 is no cut by rank")] = Field(
        None, ge=0, le=1_000_000
    )
    min_p: Annotated[float | None, ExtensionField()] = Field(None, ge=0, le=1, allow_inf_nan=False)
    typical_p: Annotated[float | None, ExtensionField()] = Field(
        None, gt=0, le=1, allow_inf_nan=False
    )
    repeat_penalty: Annotated[float | None, ExtensionField()] = Field(
        None, gt=0, le=10, allow_inf_nan=False
    )
    repeat_last_n: Annotated[int | None, ExtensionField()] = Field(None, ge=0, le=4096)
    priority: Annotated[
        int | None,
        ExtensionField(
            "waiting requests with a higher number are served first, and the number rises while a "
            "request waits; above 0 only with a key of the scope `models` or `admin`, else it counts as 0"
        ),
    ] = Field(None, ge=-100, le=100)
    timeout: Annotated[
        float | None,
        ExtensionField(
            "seconds that the request may wait for its answer to begin; after that it is a 504 and is not "
            "computed. The header `x-request-timeout` does the same on every path"
        ),
    ] = Field(None, gt=0, le=86_400, allow_inf_nan=False)
    route_trace: Annotated[
        bool | None,
        ExtensionField("the answer has the decision about its model: `edgeagent.routing`"),
    ] = None
    lora: Annotated[
        str | None,
        ExtensionField(
            "a LoRA adapter of the model, which may also be named as `model`; `/v1/models` lists them"
        ),
    ] = Field(None, min_length=1, max_length=200)
    ignore_eos: Annotated[
        bool,
        ExtensionField(
            "for measurements: draw no token that ends the answer, and go on to its limit"
        ),
    ] = False

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise InvalidParameter(
                "`stream_options` is only allowed when `stream` is true: leave one out or add the other.",
                param="stream_options",
            )
        return self

    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, defaults: Sampling) -> Sampling:
        """The values of the request over the defaults of the model."""

        def pick(name: str) -> Any:
            value = getattr(self, name)
            return getattr(defaults, name) if value is None else value

        return Sampling(
            temperature=pick("temperature"),
            top_k=pick("top_k"),
            top_p=pick("top_p"),
            min_p=pick("min_p"),
            typical_p=pick("typical_p"),
            repeat_penalty=pick("repeat_penalty"),
            repeat_last_n=pick("repeat_last_n"),
            presence_penalty=pick("presence_penalty"),
            frequency_penalty=pick("frequency_penalty"),
            logit_bias=self.logit_bias or {},
            seed=self.seed,
        )


class PromptTokensDetails(BodyModel):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(BodyModel):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageBody(BodyModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprobBody(BodyModel):
    """A token, its natural log-probability and its bytes, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobBody(TopLogprobBody):
    """A token of an answer, with the most probable alternatives."""

    top_logprobs: list[TopLogprobBody]


class TimingsBody(BodyModel):
    """Extension. Milliseconds from arrival at the engine; `tokens_per_second` while decoding."""

    queue_ms: float
    ttft_ms: float
    total_ms: float
    tokens_per_second: float | None


class ErrorDetail(BodyModel):
    message: str
    type: Literal["invalid_request_error", "server_error", "not_found_error"]
    param: str | None
    code: str | None


class ErrorBody(BodyModel):
    """The format of every error on every path."""

    error: ErrorDetail
