"""Bodies of `POST /v1/responses` and of its token count."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import STRICT, ExtensionField, IgnoredField, RequestModel
from edgeagent.api.http.tool_calls import tool_use
from edgeagent.api.openai.schemas.items import InputItem
from edgeagent.api.openai.schemas.response_format import ANY_OBJECT, schema_form
from edgeagent.api.openai.schemas.response_tools import (
    AllowedTools,
    Choice,
    FileSearchChoice,
    NamedTool,
    Tools,
    tool_offer_of,
)
from edgeagent.api.openai.schemas.shared_request_fields import GenerationRequest
from edgeagent.api.openai.schemas.stored_chats import Metadata
from edgeagent.errors import InvalidParameter
from edgeagent.serving.tool_offer import ToolOffer
from edgeagent.types.caller import Caller
from edgeagent.types.generation import Form
from edgeagent.types.tools import ToolUse

MAX_ITEMS = 4096
LOGPROBS = "message.output_text.logprobs"
FILE_RESULTS = "file_search_call.results"
# Other values concern OpenAI's hosted tools and images, which do not exist here.
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def _as_items(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Input = Annotated[list[InputItem], BeforeValidator(_as_items), Field(max_length=MAX_ITEMS)]


class ConversationId(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id


def _as_conversation(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class TextFormat(BodyModel):
    """Free text, any JSON object, or JSON by a schema."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(None, pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: Annotated[str | None, IgnoredField()] = None
    # `schema` is a method of every BaseModel.
    content: dict[str, Any] | None = Field(None, alias="schema", description="a JSON schema")
    strict: bool | None = Field(None, description=STRICT)

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> TextFormat:
        if self.type == "json_schema" and self.content is None:
            raise ValueError("`schema` goes with the type `json_schema`: add it")
        if self.type != "json_schema" and self.content is not None:
            raise ValueError(f"`schema` goes with the type `json_schema`, this is {self.type!r}")
        return self

    def form(self) -> Form | None:
        """The format for the engine; None for free text. Raises: InvalidParameter."""
        if self.content is not None:
            return schema_form(self.content, "text.format", is_strict=bool(self.strict))
        return ANY_OBJECT if self.type == "json_object" else None

    def shown(self) -> dict[str, Any]:
        if self.type != "json_schema":
            return {"type": self.type}
        return {
            "type": self.type,
            "name": self.name or "answer",
            "description": self.description,
            "schema": self.content,
            "strict": bool(self.strict),
        }


class TextOptions(BodyModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: TextFormat | None = None
    verbosity: Annotated[Literal["low", "medium", "high"] | None, IgnoredField()] = None


class Reasoning(BodyModel):
    """How much the model should reason."""

    model_config = ConfigDict(extra="forbid", strict=True)

    effort: str | None = Field(
        None,
        max_length=20,
        description="passed to the model's template; `none` also turns `enable_thinking` off",
    )
    summary: Annotated[str | None, IgnoredField("reasoning is shown unchanged")] = None
    generate_summary: Annotated[str | None, IgnoredField()] = None
    context: Annotated[str | None, IgnoredField()] = None
    mode: Annotated[str | None, IgnoredField()] = None


class ResponseInput(RequestModel):
    """The fields that `POST /v1/responses` and its token count share."""

    input: Input | None = None
    instructions: str | None = Field(
        None, description="the first message; instructions of earlier responses do not apply"
    )
    tools: Tools | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    previous_response_id: Id | None = None
    conversation: Annotated[ConversationId | None, BeforeValidator(_as_conversation)] = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None,
        description="`auto` leaves out the oldest turns where not all fit, and a note says so; system "
        "messages and the last turn stay",
    )
    reasoning: Reasoning | None = None

    @model_validator(mode="after")
    def _one_history(self) -> ResponseInput:
        if self.previous_response_id is not None and self.conversation is not None:
            raise InvalidParameter(
                "`previous_response_id` and `conversation` exclude each other, since each has its own "
                "history: leave one out.",
                param="previous_response_id",
            )
        if not self.input and self.previous_response_id is None and self.conversation is None:
            raise InvalidParameter(
                "There is nothing to answer: send `input`, a text or a list of items.",
                param="input",
            )
        return self

    @property
    def items(self) -> list[InputItem]:
        return self.input or []

    def tool_use(self, caller: Caller, *, has_own: bool = False) -> ToolUse | None:
        """The tools that the answer may call; with `has_own` the model has tools of its own. Raises:
        InvalidParameter, Forbidden."""
        offer = self.tool_offer()
        is_parallel = self.parallel_tool_calls is not False
        chosen = self.tool_choice
        mode: Literal["none", "auto", "required"] = "auto"
        name: str | None = None
        only: list[str] | None = None
        if isinstance(chosen, NamedTool):
            name = offer.wanted(chosen.name, chosen.namespace)
        elif isinstance(chosen, FileSearchChoice):
            mode = "none"
        elif isinstance(chosen, AllowedTools):
            mode, only = chosen.mode, chosen.names(offer)
        else:
            mode = chosen or "auto"
        if mode == "required" and offer.file_search is not None and not offer.tools:
            mode = "auto"  # the search, which is done in any case, is the call
        if not has_own:
            offer.check_choice(is_required=mode == "required")
        if only == []:
            return None
        return tool_use(
            offer.tools,
            caller,
            choice=mode,
            name=name,
            only=only,
            is_parallel=is_parallel,
            has_own=has_own,
        )

    def tool_offer(self) -> ToolOffer:
        """The tools as the model sees them, and notes about those that were left out."""
        offer = tool_offer_of(self.tools)
        if self.tool_choice == "none":
            offer.file_search = None
        return offer

    def variables(self) -> dict[str, Any]:
        """The variables about reasoning for the model's template."""
        effort = self.reasoning.effort if self.reasoning is not None else None
        if effort is None:
            return {}
        return {"reasoning_effort": effort} | (
            {"enable_thinking": False} if effort == "none" else {}
        )


class ResponseRequest(GenerationRequest, ResponseInput):
    """OpenAI's request for a response. Fields that are accepted and ignored are marked."""

    refused: ClassVar[dict[str, tuple[object, ...]]] = {
        "prompt": (),
        "context_management": ([],),
        "moderation": (),
        "background_options": ({},),
        "image": ({},),
        "access_programs": ({},),
    }

    n: Annotated[int | None, ExtensionField("a response is one answer")] = Field(None, ge=1, le=1)
    max_output_tokens: int | None = Field(None, ge=1, le=1 << 20)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[Includable] | None = Field(
        None,
        max_length=32,
        description="values other than logprobs and `file_search_call.results` have no effect",
    )
    metadata: Metadata | None = Field(
        None,
        description="stored with the answer; `subject` names the person it is about, `domain` the domain "
        "for an assistant model, `escalate` (true, false) whether a larger model may answer",
    )
    store: bool | None = Field(
        None,
        description="store question and answer on this device. Default: true, where this daemon stores "
        "anything",
    )
    background: bool | None = Field(
        None, description="return at once and continue without the client; needs `store`"
    )
    max_tool_calls: Annotated[int | None, IgnoredField("it limits tools that run at OpenAI")] = None
    service_tier: Annotated[str | None, IgnoredField()] = None
    safety_identifier: Annotated[str | None, IgnoredField()] = None
    prompt_cache_key: Annotated[str | None, IgnoredField("prefixes are found automatically")] = None
    prompt_cache_retention: Annotated[str | None, IgnoredField()] = None
    prompt_cache_options: Annotated[dict[str, Any] | None, IgnoredField()] = None
    client_metadata: Annotated[dict[str, Any] | None, IgnoredField("Codex identifies itself")] = (
        None
    )

    @property
    def shows_results(self) -> bool:
        """Whether the results of a file search are shown."""
        return FILE_RESULTS in (self.include or [])

    @property
    def n_logprobs(self) -> int | None:
        """The number of alternatives to each token; None: no log-probabilities."""
        if LOGPROBS in (self.include or []) or self.top_logprobs:
            return self.top_logprobs or 0
        return None

    def form(self) -> Form | None:
        """The format of the answer. Raises: InvalidParameter."""
        chosen = self.text.format if self.text is not None else None
        return chosen.form() if chosen is not None else None


class TokenCountRequest(ResponseInput):
    """A turn whose tokens are counted."""

    model: str | None = Field(None, max_length=200, description="a model id, or `default`")
    personality: Annotated[str | None, IgnoredField()] = None


class TokenCount(BodyModel):
    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class InputTokensDetails(BodyModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(BodyModel):
    reasoning_tokens: int


class ResponseUsage(BodyModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseErrorBody(BodyModel):
    """Why a response failed. `code` is OpenAI's code, `type` our own."""

    code: str
    message: str
    type: str | None


class ResponseAnswer(BodyModel):
    """A response; streams send `response.*` events, the last of which contains it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseErrorBody | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    model: str
    output: list[dict[str, Any]]
    previous_response_id: str | None
    conversation: ConversationId | None
    store: bool
    usage: ResponseUsage | None
    metadata: dict[str, str]
