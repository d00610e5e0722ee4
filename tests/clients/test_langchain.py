"""`langchain-openai` as its users write it, against a running daemon with a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.conftest import MINILM, SMOLLM, TALES_CHAT, DaemonProcess
from tests.lazy import lazily

messages = lazily("langchain_core.messages")
tools = lazily("langchain_core.tools")
if TYPE_CHECKING:
    import langchain_openai
else:
    langchain_openai = lazily("langchain_openai")

QUESTION = "Name one colour of the sky."
# Where texts are compared: each token of the answer is likelier by far than the next best one, so that
# it does not hang on how a processor rounds in a batch of another shape.
SURE = "Repeat after me: one, two, three, four, five, six, seven."
SURE_TOO = "Repeat after me: January, February, March, April, May, June."


class Booking(BaseModel):
    """A table that somebody wants."""

    persons: int = Field(ge=1, le=9)
    time: Literal["noon", "evening"]


@pytest.fixture
def lamp() -> Any:
    """A tool that switches one of two lamps."""

    @tools.tool
    def lamp(room: Literal["hall", "attic"], on: bool) -> str:
        """Switch a lamp."""
        return f"The lamp in the {room} is {'on' if on else 'off'}."

    return lamp


def model_of(daemon: DaemonProcess, **options: Any) -> langchain_openai.ChatOpenAI:
    own = {"model": SMOLLM, "temperature": 0, "max_tokens": 40, "max_retries": 0}
    return langchain_openai.ChatOpenAI(
        base_url=f"{daemon.url}/v1", api_key="none", **(own | options)
    )


@pytest.fixture(scope="module")
def model(tales_daemon: DaemonProcess) -> langchain_openai.ChatOpenAI:
    return model_of(tales_daemon, model=TALES_CHAT)


@pytest.fixture(scope="module")
def sure_model(smollm_daemon: DaemonProcess) -> langchain_openai.ChatOpenAI:
    """Where texts are compared."""
    return model_of(smollm_daemon)


def test_an_answer_has_text_and_usage_and_says_why_it_ended(model: langchain_openai.ChatOpenAI):
    answer = model.invoke([("system", "Answer in one word."), ("human", QUESTION)])
    assert isinstance(answer, messages.AIMessage) and answer.text
    assert answer.usage_metadata is not None
    usage = answer.usage_metadata
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert answer.response_metadata["model_name"] == TALES_CHAT
    cut = model.invoke(QUESTION, max_tokens=2)
    assert cut.response_metadata["finish_reason"] == "length"
    assert cut.usage_metadata is not None and cut.usage_metadata["output_tokens"] == 2


def test_a_stream_gives_the_text_of_the_whole_answer_and_its_usage(
    sure_model: langchain_openai.ChatOpenAI,
):
    chunks = list(sure_model.stream(SURE, stream_usage=True))
    assert len(chunks) > 2 and all(isinstance(chunk, messages.AIMessageChunk) for chunk in chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.text == sure_model.invoke(SURE).text
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] > 0
    assert whole.response_metadata["finish_reason"] in ("stop", "length")


async def test_many_questions_at_once_are_answered_asynchronously(
    sure_model: langchain_openai.ChatOpenAI,
):
    answers = await sure_model.abatch([SURE, SURE_TOO] * 2, max_tokens=8)
    assert answers[0].text == answers[2].text and answers[1].text == answers[3].text
    assert "two, three" in answers[0].text and "February, March" in answers[1].text


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_is_called_run_and_its_result_answered(
    model: langchain_openai.ChatOpenAI, is_streamed: bool, lamp: Any
):
    with_tools = model.bind_tools([lamp], tool_choice="lamp", strict=True)
    asked: list[Any] = [messages.HumanMessage("Switch the lamp in the hall on.")]
    if is_streamed:
        answer: Any = None
        for chunk in with_tools.stream(asked):
            answer = chunk if answer is None else answer + chunk
    else:
        answer = with_tools.invoke(asked)
    assert not answer.invalid_tool_calls
    (call,) = answer.tool_calls
    assert call["name"] == "lamp" and call["id"].startswith("call_")
    result = lamp.invoke(call)  # validates the arguments
    assert isinstance(result, messages.ToolMessage) and result.content.startswith("The lamp in the")
    said = model.bind_tools([lamp], tool_choice="none").invoke([*asked, answer, result])
    assert said.text and not said.tool_calls


def test_a_choice_is_enforced_and_parallel_calls_can_be_forbidden(
    model: langchain_openai.ChatOpenAI, lamp: Any
):
    bound = model.bind_tools([lamp], tool_choice="any", parallel_tool_calls=False)
    answer = bound.invoke("Hello!")
    assert [call["name"] for call in answer.tool_calls] == ["lamp"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_comes_as_the_type_asked_for(
    model: langchain_openai.ChatOpenAI, method: Any
):
    asker = model.with_structured_output(Booking, method=method, include_raw=True)
    found = asker.invoke("A table for two at noon, please.")
    assert isinstance(found, dict)
    assert found["parsing_error"] is None and isinstance(found["parsed"], Booking)


def test_json_mode_and_schemas_written_as_dicts(model: langchain_openai.ChatOpenAI):
    schema = {"title": "Weather", "type": "object", "required": ["rain"],
              "properties": {"rain": {"type": "boolean"}}, "additionalProperties": False}  # fmt: skip
    found = model.with_structured_output(schema, method="json_schema").invoke("Does it rain?")
    jsonschema.validate(found, schema)
    bound = model.bind(response_format={"type": "json_object"}, max_tokens=200)
    try:
        text = bound.invoke("Answer in JSON: is it raining? Be brief.").text
    except openai.LengthFinishReasonError as cut:
        # The SDK minds that it was cut; what the server closed is whole all the same.
        text = cut.completion.choices[0].message.content or ""
    assert isinstance(json.loads(text), dict)


def test_the_responses_api_answers_and_continues(smollm_daemon: DaemonProcess):
    model = model_of(smollm_daemon, use_responses_api=True, max_tokens=16)
    first = model.invoke(SURE)
    assert first.text and first.response_metadata["id"].startswith("resp_")
    second = model.invoke("What came last?", previous_response_id=first.response_metadata["id"])
    assert second.text and second.usage_metadata is not None
    assert second.usage_metadata["input_token_details"]["cache_read"] > 0
    streamed = list(model.stream(SURE))
    assert "".join(chunk.text for chunk in streamed) == first.text


def test_errors_are_those_of_the_sdk(
    model: langchain_openai.ChatOpenAI, tales_daemon: DaemonProcess
):
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        model_of(tales_daemon, model="gpt-4o").invoke("Hi")
    with pytest.raises(openai.BadRequestError, match="top_p"):
        model.invoke("Hi", top_p=3)
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096") as caught:
        model.invoke("rain " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_documents_and_queries_are_embedded(smollm_daemon: DaemonProcess, minilm_dir: Path):
    with httpx.Client(timeout=60) as http_client:  # the class closes none of its own
        # Its own cutting of long texts counts with OpenAI's tokenizers, which it would download.
        embeddings = langchain_openai.OpenAIEmbeddings(
            model=MINILM, base_url=f"{smollm_daemon.url}/v1", api_key="none", max_retries=0,
            check_embedding_ctx_length=False, http_client=http_client,
        )  # fmt: skip
        texts = ["The parcel has not arrived.", "Roses like clay soil."]
        rows = embeddings.embed_documents(texts)
        asked = embeddings.embed_query("Where is my package?")
    near, far = (sum(a * b for a, b in zip(row, asked, strict=True)) for row in rows)
    assert len(asked) == 384 and near > far + 0.2
