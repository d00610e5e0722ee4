"""Bodies of Ollama's `/api/chat` and `/api/generate`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import ExtensionField, IgnoredField
from edgeagent.api.http.lenient_body import LooseModel
from edgeagent.api.http.tool_calls import MAX_TOOLS, tool_use
from edgeagent.api.ollama.message_schemas import OllamaMessage, OllamaTool, no_images, turns
from edgeagent.api.ollama.options import OllamaOptions
from edgeagent.api.openai.schemas.completions import TokenId
from edgeagent.api.openai.schemas.response_format import ANY_OBJECT, schema_form
from edgeagent.api.openai.schemas.shared_request_fields import TokenLogprobBody
from edgeagent.errors import InvalidParameter
from edgeagent.types.caller import Caller
from edgeagent.types.generation import Form
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import ToolUse

MAX_MESSAGES = 4096
MAX_CONTEXT = 1 << 20  # tokens; more than any context has

KeepAlive = Annotated[
    float | str | None, IgnoredField("the setting `idle_unload_s` decides how long a model stays")
]


def plain_name(name: str) -> str:
    """The id of a model here. Ollama's clients append the tag `latest` to names without a tag."""
    return name.removesuffix(":latest")


class OllamaRequest(LooseModel):
    """The fields that chat and generate share."""

    model: str = Field(
        min_length=1, max_length=200, description="a model id, or `default`; `:latest` may follow"
    )
    stream: bool | None = Field(True, description="lines of JSON, unless false")
    format: Literal["", "json"] | dict[str, Any] | None = Field(
        None, description="`json` for any object, or a JSON schema, which is enforced"
    )
    options: OllamaOptions | None = None
    think: bool | Literal["low", "medium", "high"] | None = Field(
        None, description="passed to the model's template; false also leaves it out of the answer"
    )
    keep_alive: KeepAlive = None
    truncate: Annotated[
        bool | None, IgnoredField("a prompt that is too long is refused, not cut")
    ] = None
    shift: Annotated[bool | None, IgnoredField("a prompt that is too long is refused, not cut")] = (
        None
    )
    route_trace: Annotated[
        bool | None,
        ExtensionField("the answer has the decision about its model: `edgeagent.routing`"),
    ] = None
    logprobs: bool | None = Field(
        None, description="the log-probability of each token, before sampling"
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="the number of most probable alternatives to each token"
    )

    @property
    def n_logprobs(self) -> int | None:
        """The number of alternatives to each token; None: no log-probabilities."""
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def chosen(self) -> OllamaOptions:
        return self.options or OllamaOptions.model_validate({})

    def form(self) -> Form | None:
        """The format of the answer."""
        if isinstance(self.format, dict):
            return schema_form(self.format, "format", is_strict=False)
        return ANY_OBJECT if self.format == "json" else None

    def tool_use(self, caller: Caller) -> ToolUse | None:
        """The tools that the answer may call. Raises: InvalidParameter, Forbidden."""
        return None

    @property
    def shows_thinking(self) -> bool:
        return self.think is not False

    @property
    def is_unload(self) -> bool:
        """Whether the model is to be unloaded at once, which applies to requests without a question."""
        text = self.keep_alive
        return text in (0, "0") or (isinstance(text, str) and text in ("0s", "0m", "0h", "0ms"))

    def template_variables(self) -> dict[str, Any]:
        if self.think is None:
            return {}
        told: dict[str, Any] = {"enable_thinking": self.think is not False}
        return told | ({"reasoning_effort": self.think} if isinstance(self.think, str) else {})


class OllamaChatRequest(OllamaRequest):
    """Ollama's chat. Without messages the model is only loaded, or unloaded with `keep_alive` 0."""

    messages: Annotated[list[OllamaMessage], Field(max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[OllamaTool], Field(max_length=MAX_TOOLS)] | None = Field(
        None, description="functions that the model may call"
    )

    def prompt(self) -> Prompt:
        """What the model's template is given. A last turn of the assistant is how the answer begins."""
        messages = turns(self.messages or [])
        last, prefill = messages[-1], ""
        if len(messages) > 1 and last["role"] == "assistant" and "tool_calls" not in last:
            prefill = str(last["content"])
            messages.pop()
        return Prompt(messages=messages, prefill=prefill, variables=self.template_variables())

    def tool_use(self, caller: Caller) -> ToolUse | None:
        return tool_use([tool.tool() for tool in self.tools or ()], caller)


class OllamaGenerateRequest(OllamaRequest):
    """Ollama's request to continue a text, by the model's template unless `raw`. Without a prompt the model
    is only loaded, or unloaded with `keep_alive` 0."""

    prompt: str | None = None
    suffix: str | None = Field(None, description="the text after the answer")
    system: str | None = None
    raw: bool | None = Field(
        None,
        description="continue the prompt unchanged, without the template; names of special tokens in "
        "it are those tokens",
    )
    images: list[Any] | None = Field(None, description="refused unless empty")
    context: Annotated[list[TokenId], Field(max_length=MAX_CONTEXT)] | None = Field(
        None, description="the `context` of an earlier answer, which precedes this prompt"
    )

    refused: ClassVar[dict[str, tuple[object, ...]]] = {
        "template": ("",), "width": (0,), "height": (0,), "steps": (0,),
    }  # fmt: skip

    @field_validator("images")
    @classmethod
    def _has_none(cls, images: list[Any] | None) -> list[Any] | None:
        return no_images(images, "images")

    @model_validator(mode="after")
    def _fits_together(self) -> OllamaGenerateRequest:
        for name, is_there in (("raw", bool(self.raw)), ("suffix", bool(self.suffix))):
            if is_there and self.context:
                raise InvalidParameter(
                    f"`context` goes before a prompt that the model's template renders, and `{name}` has no "
                    "template: leave one of them out.",
                    param="context",
                )
        return self

    @property
    def tells_context(self) -> bool:
        """Whether the answer says what the next request's `context` is."""
        return not self.raw and not self.suffix

    def question_prompt(self) -> Prompt:
        return msgspec.structs.replace(self._asked(), before=self.context or [])

    def _asked(self) -> Prompt:
        text = self.prompt or ""
        if self.suffix:
            return Prompt(text=text, suffix=self.suffix)
        if self.raw:  # the prompt already has the markup of the model's template
            return Prompt(text=text, parse_special=True)
        messages = [{"role": "user", "content": text}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        plain = f"{self.system}\n\n{text}" if self.system else text
        return Prompt(messages=messages, text=plain, variables=self.template_variables())


class OllamaError(BodyModel):
    """The format of every error below `/api`."""

    error: str


class OllamaFunction(BodyModel):
    name: str
    arguments: dict[str, Any]


class OllamaCall(BodyModel):
    id: str
    function: OllamaFunction


class OllamaAnswerMessage(BodyModel):
    role: Literal["assistant"] = "assistant"
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class OllamaEnd(BodyModel):
    """Counts and times, with the last line of a stream. Durations in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[TokenLogprobBody] | None = None


class OllamaChatAnswer(OllamaEnd):
    message: OllamaAnswerMessage


class OllamaGenerateAnswer(OllamaEnd):
    response: str
    thinking: str | None = None
    context: list[int] | None = Field(
        None, description="token ids of the dialogue so far, in the last line, unless `raw`"
    )
