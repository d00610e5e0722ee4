"""Requests that a worker answers in one piece: vectors, scores, tokens, counts."""

from __future__ import annotations

import msgspec

from edgeagent.types.generation import GenerateSpec
from edgeagent.types.kv_state import StateQuestion


class EmbedSpec(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Texts or token ids to turn into vectors. `dimensions` keeps the first numbers of each vector;
    `truncate` cuts a text that is too long instead of refusing it."""

    inputs: list[str | list[int]]
    dimensions: int | None = None
    truncate: bool = False


class RerankSpec(msgspec.Struct, frozen=True, kw_only=True, tag="rerank"):
    """Documents to compare with a query. At most `max_tokens` of each are read; `truncate` cuts a
    document that does not fit together with the query instead of refusing it."""

    query: str
    documents: list[str]
    max_tokens: int | None = None
    truncate: bool = False


class TokenizeSpec(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """A text to tokenize. `add_special` adds the tokens that the model puts around every text;
    `parse_special` reads the names of special tokens in the text as those tokens."""

    text: str
    add_special: bool = False
    parse_special: bool = True


class DetokenizeSpec(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """Token ids to turn into text."""

    tokens: list[int]


class CountSpec(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    """A request whose prompts are rendered as for an answer, and counted in tokens."""

    request: GenerateSpec


class PromptHeadSpec(msgspec.Struct, frozen=True, kw_only=True, tag="prompt_head"):
    """Asks for the tokens that every prompt with the system messages, tools and variables of this request
    begins with, whatever its turns say."""

    request: GenerateSpec


class TemplateSpec(msgspec.Struct, frozen=True, tag="template"):
    """What the model's chat template supports."""


Question = (
    EmbedSpec
    | RerankSpec
    | TokenizeSpec
    | DetokenizeSpec
    | CountSpec
    | PromptHeadSpec
    | TemplateSpec
    | StateQuestion
)


class Vectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors"):
    """One vector of length 1 for each input: float32 little-endian [n_inputs, n_dimensions] in `data`.

    `n_prompt` counts the computed tokens, including those that the model adds.
    """

    n_dimensions: int
    data: bytes
    n_prompt: int
    queue_ms: float
    total_ms: float


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """The relevance of each document, 0..1, in the order of the documents. `n_prompt` counts the computed
    tokens, those of the query once per document."""

    values: list[float]
    n_prompt: int
    queue_ms: float
    total_ms: float
