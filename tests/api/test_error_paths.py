"""The field at fault is named as the client wrote it, whatever types the field may have."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from edgeagent.api.anthropic.schemas import MessagesRequest
from edgeagent.api.http.errors import translate
from edgeagent.api.ollama.chat_schemas import OllamaChatRequest
from edgeagent.api.openai.schemas.chat import ChatRequest
from edgeagent.api.openai.schemas.responses import ResponseRequest

SAID = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"messages": SAID}
OLLAMA: dict[str, Any] = {"model": "m", "messages": SAID}
MESSAGES: dict[str, Any] = {"model": "m", "messages": SAID, "max_tokens": 1}


@pytest.mark.parametrize(
    ("model", "body", "param"),
    [
        (ChatRequest, CHAT | {"tool_choice": "auto1"}, "tool_choice"),
        (ChatRequest, CHAT | {"tool_choice": 5}, "tool_choice"),
        (ChatRequest, CHAT | {"tool_choice": {"type": "function"}}, "tool_choice.function"),
        (ChatRequest, CHAT | {"stop": 5}, "stop"),
        (ChatRequest, CHAT | {"stop": [5]}, "stop"),
        (ChatRequest, CHAT | {"logit_bias": {"a": 1}}, "logit_bias.a"),
        (ChatRequest, CHAT | {"metadata": {"a": 1}}, "metadata.a"),
        (ChatRequest, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (ResponseRequest, {"input": "x", "conversation": 5}, "conversation"),
        (ResponseRequest, {"input": "x", "tool_choice": {"type": "function"}}, "tool_choice.name"),
        (MessagesRequest, MESSAGES | {"tool_choice": "auto"}, "tool_choice"),
        (MessagesRequest, MESSAGES | {"system": 5}, "system"),
        (OllamaChatRequest, OLLAMA | {"format": 5}, "format"),
        (OllamaChatRequest, OLLAMA | {"think": 5}, "think"),
        (OllamaChatRequest, OLLAMA | {"keep_alive": []}, "keep_alive"),
    ],
)
def test_the_path_of_a_field_has_no_types_in_it(model, body, param):
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate(body)
    error = translate(caught.value)
    assert error.param == param
    assert error.message.startswith(f"`{param}`: ")
    for word in ("literal[", "instance of", "constrained", "ConversationId"):
        assert word not in error.message


@pytest.mark.parametrize(
    "key",
    ["[0]", "a[key]b", "function-after", "constrained-", "tag-x", "str", "null", "ChatRequest", "", "0"],
)  # fmt: skip
@pytest.mark.parametrize("model", [ChatRequest, ResponseRequest, MessagesRequest])
def test_an_unknown_key_that_looks_like_a_type_is_named_as_the_client_wrote_it(model, key):
    body = {ChatRequest: CHAT, ResponseRequest: {"input": "x"}, MessagesRequest: MESSAGES}[model]
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate(body | {key: 1})
    error = translate(caught.value)
    assert (error.param or "") == key
    assert error.message.startswith(f"Unknown parameter `{key}`: ")
