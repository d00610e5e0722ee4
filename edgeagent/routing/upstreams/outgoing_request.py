"""A request of ours in OpenAI's format, for an upstream. Pure.

Only what the client gave is sent: the upstream has defaults of its own (`BLANK`).
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import msgspec

from edgeagent.errors import UnsupportedParameter
from edgeagent.types.generation import Form, GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import Tool, ToolUse

CHARS_PER_TOKEN = 4  # of an estimate, where an upstream does not count
# The values of a model that leaves them to its engine.
BLANK = Sampling(
    temperature=math.nan,
    top_k=-1,
    top_p=math.nan,
    min_p=math.nan,
    typical_p=math.nan,
    repeat_penalty=math.nan,
    repeat_last_n=-1,
    presence_penalty=math.nan,
    frequency_penalty=math.nan,
)
_SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "repeat_last_n",
    "presence_penalty", "frequency_penalty",
)  # fmt: skip


def given(value: float) -> float | None:
    """A value of a sampling; None where it is left to the upstream."""
    return None if math.isnan(value) else value


class OutgoingRequest(NamedTuple):
    """Path below the upstream's address, body, and what the audit says of it."""

    path: str
    body: dict[str, Any]
    n_messages: int
    n_chars: int
    n_tools: int

    @property
    def counts(self) -> str:
        return f"messages:{self.n_messages} characters:{self.n_chars} tools:{self.n_tools}"

    @property
    def n_prompt_tokens(self) -> int:
        """An estimate of its tokens, at least 1: of its texts, and of the calls, tools and formats in it."""
        parts = [self.body[name] for name in ("tools", "response_format") if name in self.body]
        messages = self.body.get("messages", ())
        parts += [message["tool_calls"] for message in messages if message.get("tool_calls")]
        n_chars = self.n_chars + sum(len(msgspec.json.encode(part)) for part in parts)
        return max(1, -(-n_chars // CHARS_PER_TOKEN))


def outgoing_request(spec: GenerateSpec, model: str) -> OutgoingRequest:
    """Raises: UnsupportedParameter for what OpenAI's format cannot say."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if any(prompt.tokens is not None or prompt.before for prompt in spec.prompts):
        raise UnsupportedParameter(
            "A model that answers elsewhere has tokens of its own: send the prompt as text.",
            param="prompt",
        )
    body |= _sampling(spec)
    if all(prompt.messages is not None for prompt in spec.prompts):
        return _chat(spec, body)
    return _completion(spec, body)


def _sampling(spec: GenerateSpec) -> dict[str, Any]:
    sampling = spec.sampling
    given: dict[str, Any] = {}
    for name in _SAMPLING:
        value = getattr(sampling, name)
        if value == value and value != getattr(BLANK, name):
            given[name] = value
    if sampling.logit_bias:
        given["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.seed is not None:
        given["seed"] = sampling.seed
    if spec.max_tokens is not None:
        given["max_tokens"] = spec.max_tokens
    if spec.stop:
        given["stop"] = spec.stop
    if spec.n > 1:
        given["n"] = spec.n
    if spec.ignore_eos:
        given["ignore_eos"] = True
    return given


def _chat(spec: GenerateSpec, body: dict[str, Any]) -> OutgoingRequest:
    (prompt,) = spec.prompts
    messages = outgoing_messages(prompt)
    body["messages"] = messages
    if prompt.prefill:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif not prompt.opens_answer:
        body["add_generation_prompt"] = False
    body |= _template_variables(prompt.variables)
    if spec.form is not None:
        body["response_format"] = _response_format(spec.form)
    if spec.tools is not None:
        body |= _tools(spec.tools)
    if spec.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": spec.logprobs}
    n_chars = sum(len(str(message.get("content") or "")) for message in messages)
    n_tools = len(spec.tools.tools) if spec.tools is not None else 0
    return OutgoingRequest("/chat/completions", body, len(messages), n_chars, n_tools)


def _completion(spec: GenerateSpec, body: dict[str, Any]) -> OutgoingRequest:
    texts = [prompt.text or "" for prompt in spec.prompts]
    if spec.logprobs is not None or spec.scores_prompt or spec.form is not None:
        raise UnsupportedParameter(
            "A model that answers elsewhere continues texts without log-probabilities and formats: leave "
            "them out, or send a chat.",
            param="logprobs",
        )
    body["prompt"] = texts[0] if len(texts) == 1 else texts
    suffixes = {prompt.suffix for prompt in spec.prompts if prompt.suffix is not None}
    if suffixes:
        body["suffix"] = suffixes.pop()
    n_chars = sum(map(len, texts)) + len(body.get("suffix", ""))
    return OutgoingRequest("/completions", body, len(texts), n_chars, 0)


def _template_variables(variables: dict[str, Any]) -> dict[str, Any]:
    given = dict(variables)
    found: dict[str, Any] = {}
    if "reasoning_effort" in given:
        found["reasoning_effort"] = given.pop("reasoning_effort")
    if given:
        found["chat_template_kwargs"] = given
    return found


def _response_format(form: Form) -> dict[str, Any]:
    if form.kind != "json_schema":
        raise UnsupportedParameter(
            f"A model that answers elsewhere follows JSON schemas, and no format of kind {form.kind!r}: send "
            "a JSON schema, or name a model on this device.",
            param="response_format",
        )
    schema = json.loads(form.text)
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": form.is_strict},
    }


def _tools(use: ToolUse) -> dict[str, Any]:
    found: dict[str, Any] = {"tools": [_tool(tool) for tool in use.tools]}
    if use.name is not None:
        found["tool_choice"] = {"type": "function", "function": {"name": use.name}}
    elif use.choice == "required":
        found["tool_choice"] = "required"
    if not use.is_parallel:
        found["parallel_tool_calls"] = False
    return found


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.is_strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def outgoing_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages as OpenAI has them: each call has an id and its arguments as text, each result the id of
    its call. Dialects without ids get them here."""
    messages: list[dict[str, Any]] = []
    unanswered: list[str] = []
    n_calls = 0
    for message in prompt.messages or ():
        told = {key: value for key, value in message.items() if value is not None}
        if calls := told.get("tool_calls"):
            told["tool_calls"] = []
            for call in calls:
                function = call.get("function", {})
                arguments = function.get("arguments", "{}")
                if not isinstance(arguments, str):
                    arguments = json.dumps(arguments, ensure_ascii=False)
                call_id = call.get("id") or f"call_{n_calls}"
                n_calls += 1
                unanswered.append(call_id)
                told["tool_calls"].append({
                    "id": call_id,
                    "type": "function",
                    "function": {"name": function.get("name", ""), "arguments": arguments},
                })  # fmt: skip
        if told.get("role") == "tool":
            call_id = told.get("tool_call_id") or (unanswered[0] if unanswered else "call_0")
            if call_id in unanswered:
                unanswered.remove(call_id)
            told = {"role": "tool", "tool_call_id": call_id, "content": told.get("content", "")}
        messages.append(told)
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    return messages
