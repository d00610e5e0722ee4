"""Bodies of `POST /v1/embeddings`, `/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from edgeagent.api.http.field_marks import ExtensionField, IgnoredField
from edgeagent.api.openai.schemas.completions import TokenId
from edgeagent.errors import InvalidParameter, UnsupportedParameter

# As OpenAI's.
MAX_INPUTS = 2048

Text = Annotated[str, Field(min_length=1)]
TokenList = Annotated[list[TokenId], Field(min_length=1, max_length=1 << 20)]


class EmbeddingRequest(BaseModel):
    """OpenAI's embedding request: a text, token ids, or a list of either. Token ids are taken as they
    are; to a text the model's own marks are added."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: (
        Text
        | TokenList
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    model: str | None = Field(
        None, max_length=200, description="a model id; without it, the first that makes embeddings"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64 is float32, little-endian"
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="keep that many numbers of each vector, scaled to length 1 again; a model that was "
        "not trained for it loses more than one that was",
    )
    user: Annotated[str | None, IgnoredField()] = None
    truncate: Annotated[
        bool, ExtensionField("leave away the end of a text that is too long for the model")
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
                "`input` has something that is no text and no token id (0 to 2147483647): correct it "
                "there.",
                param="input",
            ) from None

    def inputs(self) -> list[str | list[int]]:
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return list(self.input)


class EmbeddingBody(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingTimings(BaseModel):
    """Extension. Milliseconds from arrival at the engine."""

    queue_ms: float
    total_ms: float


class EmbeddingAnswer(BaseModel):
    """One vector of length 1 for each input, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage
    timings: EmbeddingTimings


class TokenizeRequest(BaseModel):
    """A text to cut into a model's tokens: `content` as llama.cpp's server has it, or `prompt` as vLLM's
    does."""

    model_config = ConfigDict(extra="forbid", strict=True)

    content: str | None = None
    prompt: str | None = Field(None, description="the text, in vLLM's words")
    model: str | None = Field(None, max_length=200, description="a model id, or the default")
    add_special: bool | None = Field(
        None, description="with the marks that the model adds to a text; false without it"
    )
    add_special_tokens: bool | None = Field(
        None, description="the same for a `prompt`, in vLLM's words; true without it"
    )
    parse_special: bool = Field(True, description="names of special tokens become those tokens")
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
        """Whether the model's own marks are added: vLLM adds them unless told not to, llama.cpp if told."""
        for chosen in (self.add_special, self.add_special_tokens):
            if chosen is not None:
                return chosen
        return self.prompt is not None


class TokenizeAnswer(BaseModel):
    """`max_model_len`: the most tokens that a prompt and its answer may have together."""

    tokens: list[int]
    count: int
    max_model_len: int
    model: str


class TokenizerInfo(BaseModel):
    """Special tokens by their texts, and sizes in tokens."""

    tokenizer_class: str = "llama.cpp"
    bos_token: str
    eos_token: str
    chat_template: str | None
    model_max_length: int
    vocab_size: int


class DetokenizeRequest(BaseModel):
    """Token ids to turn back into text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: Annotated[list[TokenId], Field(max_length=1 << 20)]
    model: str | None = Field(None, max_length=200, description="a model id, or the default")


class DetokenizeAnswer(BaseModel):
    """The text, under the names that llama.cpp's server and vLLM's have for it."""

    content: str
    prompt: str
    model: str
