"""Bodies of Ollama's paths for models: lists, details, embeddings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import IgnoredField
from edgeagent.api.http.lenient_body import LooseModel
from edgeagent.api.ollama.chat_schemas import KeepAlive
from edgeagent.api.openai.schemas.embeddings import MAX_INPUTS
from edgeagent.api.openai.schemas.models import TemplateBody
from edgeagent.errors import InvalidParameter

ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class ShowRequest(LooseModel):
    """The model to show."""

    model: ModelName | None = None
    name: ModelName | None = Field(None, description="the former name of `model`")
    verbose: Annotated[bool | None, IgnoredField()] = None
    system: Annotated[str | None, IgnoredField()] = None
    template: Annotated[str | None, IgnoredField()] = None
    options: Annotated[dict[str, Any] | None, IgnoredField()] = None

    @model_validator(mode="after")
    def _names_one(self) -> ShowRequest:
        if self.model is None and self.name is None:
            raise InvalidParameter("`model` is missing: name the model to show.", param="model")
        return self

    @property
    def wanted(self) -> str:
        return self.model or self.name or ""


class EmbedRequest(LooseModel):
    """Texts to turn into vectors. Without text the model is only loaded."""

    model: ModelName = Field(description="a model whose task is `embed`; `:latest` may follow")
    input: str | Annotated[list[str], Field(max_length=MAX_INPUTS)]
    truncate: bool | None = Field(True, description="cut off the end of a text that is too long")
    dimensions: int | None = Field(
        None, ge=1, le=1 << 20, description="keep this many numbers of each vector"
    )
    options: Annotated[dict[str, Any] | None, IgnoredField()] = None
    keep_alive: KeepAlive = None

    def inputs(self) -> list[str | list[int]]:
        return [self.input] if isinstance(self.input, str) else list(self.input)


class EmbeddingsRequest(LooseModel):
    """One text to turn into a vector, for older clients. Without text the model is only loaded."""

    model: ModelName = Field(description="a model whose task is `embed`; `:latest` may follow")
    prompt: str | None = None
    options: Annotated[dict[str, Any] | None, IgnoredField()] = None
    keep_alive: KeepAlive = None


class Details(BodyModel):
    parent_model: str = ""
    format: str = "gguf"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ModelListing(BodyModel):
    """An installed model. `size` in bytes; `digest` is the file's sha256, where it is known."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagList(BodyModel):
    models: list[ModelListing]


class LoadedModel(BodyModel):
    """A loaded model. `size` in bytes; no part of it is on a graphics card."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int = 0
    context_length: int


class LoadedList(BodyModel):
    models: list[LoadedModel]


class TemplateDetails(BodyModel):
    """Extension: what the model's chat template supports by itself; null until it has been tried."""

    chat_template: TemplateBody | None = None


class ModelDetails(BodyModel):
    """Details of a model. Its template is not shown: `template` is empty."""

    modelfile: str
    parameters: str
    template: str = ""
    license: str
    details: Details
    model_info: dict[str, Any] = Field(description="fields of the model file: texts, numbers, null")
    capabilities: list[str]
    modified_at: str
    edgeagent: TemplateDetails = TemplateDetails()


class EmbedAnswer(BodyModel):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsAnswer(BodyModel):
    embedding: list[float]


class VersionBody(BodyModel):
    """The version of Ollama whose API this is, because clients compare it, and our own version."""

    version: str
    edgeagent: str
