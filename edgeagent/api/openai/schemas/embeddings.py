"""Bodies of `POST /v1/embeddings`, `/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField
from edgeagent.api.openai.schemas.completions import TokenId
from edgeagent.errors import InvalidParameter, UnsupportedParameter

# OpenAI's limit.
MAX_INPUTS = 2048

Text = Annotated[str, Field(min_length=1)]
TokenList = Annotated[list[TokenId], Field(min_length=1, max_length=1 << 20)]


class EmbeddingRequest(BodyModel):
    """OpenAI's embedding request: a text, token ids, or a list of either. Token ids are used unchanged; to
    a text the model's special tokens are added."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: (
        Text
        | TokenList
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    model: str | None = Field(
        None, max_length=200, description="a model id; default: the first embedding model"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64 is float32, little-endian"
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="keep this many numbers of each vector, scaled to length 1 again; a model that was "
        "not trained for it loses more quality",
    )
    user: Annotated[str | None, IgnoredField()] = None
    truncate: Annotated[
        bool, ExtensionField("cut off the end of a text that is too long for the model")
    ] = False

    @field_validator("input", mode="wrap")
    @classmethod
    def _say_what_is_wrong(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """A union's own complaint would be about the first of its four types."""
        items = value if isinstance(value, list) else [value]
        kinds = {type(item) for item in items}
        if not items or "" in items or [] in items:
            where = f" {items.index('' if '' in items else [])}" if len(items) > 1 else ""
            raise InvalidParameter(
                f"`input`{where} is empty: send a text, token ids, or a list of either without empty "
                "ones.",
                param="input",
            )
        if len(kinds) > 1 or not kinds <= {str, int, list}:
            raise InvalidParameter(
                f"`input` has {', '.join(sorted(kind.__name__ for kind in kinds))}: send one text, one "
                "list of token ids, or a list of nothing but texts or of token lists.",
                param="input",
            )
        if kinds != {int} and len(items) > MAX_INPUTS:
            raise InvalidParameter(
                f"`input` has {len(items)} texts, one request may have {MAX_INPUTS}: send several.",
                param="input",
            )
        try:
            return handler(value)
        except ValidationError:
            raise InvalidParameter(
                "`input` has an element that is neither text nor a token id (0 to 2147483647): "
                "correct it.",
                param="input",
            ) from None

    def inputs(self) -> list[str | list[int]]:
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return list(self.input)


class EmbeddingBody(BodyModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BodyModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingTimings(BodyModel):
    """Extension. Milliseconds from arrival at the engine."""

    queue_ms: float
    total_ms: float


class EmbeddingAnswer(BodyModel):
    """One vector of length 1 for each input, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage
    timings: EmbeddingTimings


class TokenizeRequest(BodyModel):
    """A text to tokenize: `content` as in llama.cpp's server, or `prompt` as in vLLM."""

    model_config = ConfigDict(extra="forbid", strict=True)

    content: str | None = None
    prompt: str | None = Field(None, description="the text, in vLLM's words")
    model: str | None = Field(None, max_length=200, description="a model id, or the default")
    add_special: bool | None = Field(
        None, description="add the model's special tokens; default: false"
    )
    add_special_tokens: bool | None = Field(
        None, description="the same for a `prompt`, vLLM's name; default: true"
    )
    parse_special: bool = Field(True, description="read names of special tokens as those tokens")
    return_token_strs: bool | None = Field(
        None, description="in vLLM's words; token texts are not told: ask /detokenize"
    )

    @model_validator(mode="after")
    def _has_one_text(self) -> TokenizeRequest:
        if (self.content is None) == (self.prompt is None):
            said = "neither" if self.content is None else "both"
            raise InvalidParameter(
                f"The text is `content` or, in vLLM's words, `prompt`, and {said} of them came: send one.",
                param="content" if self.prompt is None else "prompt",
            )
        if self.return_token_strs:
            raise UnsupportedParameter(
                "`return_token_strs` is not supported by this version: leave it out and ask /detokenize.",
                param="return_token_strs",
            )
        return self

    @property
    def text(self) -> str:
        return self.content if self.content is not None else self.prompt or ""

    @property
    def adds_special(self) -> bool:
        """Whether the model's special tokens are added: by default for vLLM's `prompt`, on request for
        llama.cpp's `content`."""
        for chosen in (self.add_special, self.add_special_tokens):
            if chosen is not None:
                return chosen
        return self.prompt is not None


class TokenizeAnswer(BodyModel):
    """`max_model_len` is the maximum number of tokens of a prompt and its answer together."""

    tokens: list[int]
    count: int
    max_model_len: int
    model: str


class TokenizerInfo(BodyModel):
    """Special tokens as text, and sizes in tokens."""

    tokenizer_class: str = "llama.cpp"
    bos_token: str
    eos_token: str
    chat_template: str | None
    model_max_length: int
    vocab_size: int


class DetokenizeRequest(BodyModel):
    """Token ids to detokenize."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: Annotated[list[TokenId], Field(max_length=1 << 20)]
    model: str | None = Field(None, max_length=200, description="a model id, or the default")


class DetokenizeAnswer(BodyModel):
    """The text, under the names of llama.cpp's server and of vLLM."""

    content: str
    prompt: str
    model: str
