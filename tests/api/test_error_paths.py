"""The field at fault is named as the client wrote it, whatever types the field may have."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from edgeagent.api.errors import translate
from edgeagent.api.schemas.anthropic import MessagesRequest
from edgeagent.api.schemas.chat import ChatRequest
from edgeagent.api.schemas.ollama import OllamaChatRequest
from edgeagent.api.schemas.responses import ResponseRequest

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
