"""Tools of `POST /v1/responses`: functions, custom tools, namespaces of both, and tools that run
elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import STRICT, ExtensionField, IgnoredField
from edgeagent.api.http.tool_calls import MAX_TOOLS
from edgeagent.api.openai.schemas.tools import ToolName
from edgeagent.api.openai.schemas.vector_stores import RankingOptions
from edgeagent.errors import InvalidParameter
from edgeagent.serving.knowledge.file_search_tool import Answers, FileSearch, OnThinEvidence
from edgeagent.serving.tool_offer import HOSTED, ToolOffer, refuse_hosted_choice, require_hosted
from edgeagent.types.tools import Tool

SpaceName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _NamedTool(BodyModel):
    """What functions and custom tools have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: ToolName
    description: str | None = None
    defer_loading: Annotated[bool | None, IgnoredField("all are told at once")] = None
    allowed_callers: Annotated[list[str] | None, IgnoredField()] = None
    is_async: Annotated[bool | None, IgnoredField()] = Field(None, alias="async")


class FunctionTool(_NamedTool):
    """A function that the model may call."""

    type: Literal["function"]
    parameters: dict[str, Any] | None = Field(
        None, description="a JSON schema of the arguments; default: no arguments"
    )
    strict: bool | None = Field(None, description=STRICT)
    output_schema: Annotated[dict[str, Any] | None, IgnoredField()] = None

    def tool(self) -> Tool:
        return Tool(
            name=self.name,
            description=self.description,
            parameters=self.parameters or {},
            is_strict=bool(self.strict),
        )

    def offer(self, offer: ToolOffer, namespace: str | None = None) -> None:
        offer.add(self.tool(), namespace)

    def shown(self) -> dict[str, Any]:
        own = self.model_dump(include={"type", "name", "description", "parameters"})
        return own | {"strict": bool(self.strict)}


class CustomTool(_NamedTool):
    """A tool whose input is text: a function with the one argument `input`."""

    type: Literal["custom"]
    format: dict[str, Any] | None = Field(
        None, description="`text`; a grammar is accepted but not enforced, and a note says so"
    )

    def offer(self, offer: ToolOffer, namespace: str | None = None) -> None:
        offer.add_custom(self.name, self.description, self.format, namespace)

    def shown(self) -> dict[str, Any]:
        own = self.model_dump(include={"type", "name", "description"})
        return own | {"format": self.format or {"type": "text"}}


def _type(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


def _inner_kind(value: Any) -> str | None:
    kind = _type(value)
    return f"tag-{kind}" if kind is not None else None


InnerTool = Annotated[
    Annotated[FunctionTool, Tag("tag-function")] | Annotated[CustomTool, Tag("tag-custom")],
    Discriminator(_inner_kind),
]


class NamespaceTool(BodyModel):
    """Tools with a common prefix. The model sees them as functions called NAMESPACE__NAME; calls are
    returned with `namespace` and `name`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["namespace"]
    name: SpaceName
    description: str | None = None
    tools: list[InnerTool] = Field(default_factory=list, max_length=MAX_TOOLS)

    def offer(self, offer: ToolOffer) -> None:
        for tool in self.tools:
            tool.offer(offer, self.name)

    def shown(self) -> dict[str, Any]:
        own = {"type": self.type, "name": self.name, "description": self.description or ""}
        return own | {"tools": [tool.shown() for tool in self.tools]}


class FileSearchTool(BodyModel):
    """A search in vector stores for the last question, which is done before the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["file_search"]
    vector_store_ids: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=16
    )
    max_num_results: int | None = Field(None, ge=1, le=50)
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    on_thin_evidence: Annotated[
        OnThinEvidence | None,
        ExtensionField(
            "where the documents tell nothing: `decline` says so, `answer` lets the model answer, `router` "
            "asks a larger model, `human` says that a person has to be asked"
        ),
    ] = None
    nothing_found: Annotated[
        str | None, ExtensionField("what is said where the documents tell nothing")
    ] = Field(None, min_length=1, max_length=2000)
    not_sure: Annotated[
        str | None, ExtensionField("what is said before quotes that may not answer the question")
    ] = Field(None, min_length=1, max_length=2000)
    sure_evidence: Annotated[
        float | None,
        ExtensionField(
            "evidence below which quotes that no judge has read are told as uncertain; 0: never"
        ),
    ] = Field(None, ge=0, le=1)
    least_answerability: Annotated[
        float | None,
        ExtensionField(
            "what the judge has to say of the best sentence and its passage, on average, else the documents "
            "tell nothing; 0: it is not asked"
        ),
    ] = Field(None, ge=0, le=1)
    sure_answerability: Annotated[
        float | None,
        ExtensionField("the same for quotes, else they are told as uncertain; 0: never"),
    ] = Field(None, ge=0, le=1)
    answers: Annotated[
        Answers | None,
        ExtensionField(
            "`model`: the model writes the answer from the passages; `quotes`: the answer is one or two "
            "sentences of them, word for word, and no model is asked"
        ),
    ] = None

    def offer(self, offer: ToolOffer) -> None:
        if offer.file_search is not None:
            raise InvalidParameter(
                "Two tools of type `file_search` are offered: name all stores in one.",
                param="tools",
            )
        ranking = self.ranking_options
        offer.file_search = FileSearch(
            store_ids=self.vector_store_ids,
            n_results=self.max_num_results or 10,
            least_score=(ranking.score_threshold if ranking else None) or 0.0,
            filters=self.filters,
            reranks=ranking is None or ranking.ranker != "none",
            method=ranking.method if ranking else "hybrid",
            on_thin_evidence=self.on_thin_evidence,
            nothing_found=self.nothing_found,
            not_sure=self.not_sure,
            sure_evidence=self.sure_evidence,
            sure_answerability=self.sure_answerability,
            least_answerability=self.least_answerability,
            answers=self.answers or "model",
        )

    def shown(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class HostedTool(BodyModel):
    """A tool that runs at OpenAI or is known only to its models: left out, and a note says so."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(max_length=64)

    def offer(self, offer: ToolOffer) -> None:
        offer.leave_out(self.type)

    def shown(self) -> None:
        return None


def _kind(value: Any) -> str | None:
    kind = _type(value)
    if kind is None or kind in ("function", "custom", "namespace", "file_search"):
        return _inner_kind(value)
    require_hosted(kind)
    return "tag-hosted"


ResponseTool = Annotated[
    Annotated[FunctionTool, Tag("tag-function")]
    | Annotated[CustomTool, Tag("tag-custom")]
    | Annotated[NamespaceTool, Tag("tag-namespace")]
    | Annotated[FileSearchTool, Tag("tag-file_search")]
    | Annotated[HostedTool, Tag("tag-hosted")],
    Discriminator(
        _kind,
        custom_error_type="tool",
        custom_error_message="a tool is an object with a `type`, such as `function`",
    ),
]
Tools = Annotated[list[ResponseTool], Field(max_length=MAX_TOOLS)]


def tool_offer_of(tools: list[ResponseTool] | None) -> ToolOffer:
    """The tools of a request as the model sees them."""
    offer = ToolOffer()
    for tool in tools or ():
        tool.offer(offer)
    return offer


class NamedTool(BodyModel):
    """One tool that must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function", "custom"]
    name: str = Field(min_length=1, max_length=64)
    namespace: str | None = Field(None, max_length=64)


class FileSearchChoice(BodyModel):
    """The documents are searched, which is done in any case; no function is called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["file_search"]


class AllowedTool(BodyModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)
    name: str | None = Field(None, min_length=1, max_length=64)
    namespace: str | None = Field(None, max_length=64)


class AllowedTools(BodyModel):
    """Restricts calls to these tools."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[AllowedTool] = Field(min_length=1, max_length=MAX_TOOLS)

    def names(self, offer: ToolOffer) -> list[str]:
        """The model's names for them. Raises: InvalidParameter where a call is required and none of them
        runs here."""
        named = [tool for tool in self.tools if tool.name and not HOSTED.fullmatch(tool.type)]
        if any(tool.type == "file_search" for tool in self.tools) and not named:
            return []
        if not named and self.mode == "required":
            raise refuse_hosted_choice(self.tools[0].type)
        return [offer.wanted(tool.name or "", tool.namespace) for tool in named]


def _choice(value: Any) -> Any:
    if isinstance(value, dict):
        kind = value.get("type")
        if kind == "allowed_tools":
            return AllowedTools.model_validate(value)
        if kind == "file_search":
            return FileSearchChoice.model_validate(value)
        if isinstance(kind, str) and kind not in ("function", "custom"):
            raise refuse_hosted_choice(kind)
        return NamedTool.model_validate(value)
    if value in (None, "none", "auto", "required"):
        return value
    raise ValueError("one of `none`, `auto`, `required`, or an object that names a function")


Choice = Annotated[
    Literal["none", "auto", "required"] | NamedTool | AllowedTools | FileSearchChoice,
    BeforeValidator(_choice),
]
