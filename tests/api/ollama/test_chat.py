"""Ollama's API as its official client sees it."""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from edgeagent.api.ollama.chat import OllamaWriter
from edgeagent.api.ollama.chat_schemas import OllamaChatRequest, OllamaGenerateRequest
from edgeagent.api.ollama.models import size_in_words
from edgeagent.api.ollama.options import OllamaOptions
from edgeagent.catalog.chat_template import ChatTemplate
from edgeagent.catalog.install.installer import install_file
from edgeagent.catalog.model_library import Library
from edgeagent.errors import EngineFailed, InvalidParameter, UnsupportedParameter
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import CallDelta, TokenChunk, Usage
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.sampling import Sampling
from edgeagent.types.template import TemplateFacts
from tests.api.wire import exchange, ollama_error_of, post, request
from tests.catalog.mutants import STR, Key, take_apart
from tests.conftest import MINILM, SMOLLM, TALES_CHAT, DaemonProcess, serving, wait_for

ASK = [{"role": "user", "content": "Name three colours."}]
COLD = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def llama(tales_daemon: DaemonProcess) -> Iterator[ollama.Client]:
    with ollama.Client(host=tales_daemon.url) as client:
        yield client


@pytest.fixture(scope="module")
def smollm_llama(smollm_daemon: DaemonProcess) -> Iterator[ollama.Client]:
    with ollama.Client(host=smollm_daemon.url) as client:
        yield client


def chat(client: ollama.Client, **kwargs: Any) -> Any:
    return client.chat(**({"model": TALES_CHAT, "messages": ASK, "options": COLD} | kwargs))


def test_a_chat_has_its_message_counts_and_times(llama):
    answer = chat(llama, model=f"{TALES_CHAT}:latest")
    assert answer.model == f"{TALES_CHAT}:latest" and answer.done and answer.done_reason == "length"
    assert answer.message.role == "assistant" and answer.message.content
    assert answer.eval_count == 12 and answer.prompt_eval_count > 5
    assert answer.total_duration >= answer.eval_duration > 0
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(answer.created_at)
    assert abs(age.total_seconds()) < 300


def test_a_stream_gives_the_text_of_the_whole_answer(llama):
    parts = list(chat(llama, stream=True))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    text = "".join(part.message.content for part in parts)
    # One word for sure: a longer greedy text differs with what runs beside it.
    assert text.split()[0] == chat(llama).message.content.split()[0]
    assert parts[-1].eval_count == 12 and parts[-1].done_reason == "length"


def test_lines_of_json_are_the_default(tales_daemon: DaemonProcess):
    body = {"model": TALES_CHAT, "options": COLD}
    for path, key in (("/api/chat", "message"), ("/api/generate", "response")):
        reply = httpx.post(f"{tales_daemon.url}{path}", json=body | asked(path), timeout=60)
        assert reply.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in reply.text.splitlines()]
        assert len(lines) > 1 and all(key in line for line in lines)
        whole = body | asked(path) | {"stream": False}
        reply = httpx.post(f"{tales_daemon.url}{path}", json=whole, timeout=60)
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["done_reason"] == "length"


def asked(path: str) -> dict[str, Any]:
    return {"prompt": "Name three colours."} if path == "/api/generate" else {"messages": ASK}


def test_generate_puts_a_prompt_into_the_template_and_raw_does_not(llama):
    text = "The opposite of hot is"
    templated = llama.generate(TALES_CHAT, text, options=COLD)
    said = llama.chat(TALES_CHAT, [{"role": "user", "content": text}], options=COLD)
    assert templated.prompt_eval_count == said.prompt_eval_count
    raw = llama.generate(TALES_CHAT, text, options=COLD, raw=True)
    assert raw.prompt_eval_count < templated.prompt_eval_count
    longer = llama.generate(TALES_CHAT, text, options=COLD, system="You are a pirate. " * 9)
    assert longer.prompt_eval_count > templated.prompt_eval_count


def test_a_model_without_a_template_continues_the_prompt(stories_dir: Path, tmp_path: Path):
    with serving(stories_dir, tmp_path / "state") as daemon, ollama.Client(daemon.url) as client:
        options = {"temperature": 0, "num_predict": 8}
        plain = client.generate("stories260k", "Once upon a time", options=options)
        raw = client.generate("stories260k", "Once upon a time", options=options, raw=True)
        assert plain.response == raw.response and plain.response
        with pytest.raises(ollama.ResponseError, match="no chat template"):
            client.chat("stories260k", ASK)
        (model,) = client.list().models
        assert model.details.family == "llama" and model.details.parameter_size == "0.26M"


def test_an_answer_holds_to_a_format(llama):
    schema = {
        "type": "object", "properties": {"name": {"enum": ["red", "blue"]}},
        "required": ["name"], "additionalProperties": False,
    }  # fmt: skip
    options = COLD | {"num_predict": 60}
    assert json.loads(chat(llama, format=schema, options=options).message.content)["name"]
    found = llama.generate(TALES_CHAT, "A colour as JSON.", format=schema, options=options)
    assert json.loads(found.response)["name"] in ("red", "blue")


def test_options_count(llama):
    stopped = chat(llama, options=COLD | {"stop": [" "], "num_predict": 30})
    assert stopped.done_reason == "stop" and " " not in stopped.message.content
    hot = {"temperature": 1.5, "num_predict": 12}
    assert len({chat(llama, options=hot | {"seed": s}).message.content for s in range(4)}) > 1
    defaults = Sampling(top_k=7)
    given = {"temperature": 0.5, "repeat_last_n": -1, "seed": 3.0, "num_ctx": 9}
    options = OllamaOptions.model_validate(given)
    sampling = options.sampling(defaults)
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.5, 7, 3)
    assert sampling.repeat_last_n == 4096 and options.max_tokens is None


def test_the_beginning_of_an_answer_is_continued(smollm_llama):
    begun = {"role": "assistant", "content": "One, two, three, four,"}
    ask = [{"role": "user", "content": "Count from one to ten in words."}]
    assert (
        "five"
        in chat(smollm_llama, model=SMOLLM, messages=[*ask, begun], options=COLD).message.content
    )


def test_models_are_listed_shown_and_seen_in_memory(smollm_llama, smollm_daemon: DaemonProcess):
    chat(smollm_llama, model=SMOLLM)
    listed = {model.model: model for model in smollm_llama.list().models}
    found = listed[f"{SMOLLM}:latest"]
    assert found.size > 50 << 20 and len(found.digest) == 64
    assert found.details.parameter_size == "134.5M"
    assert found.details.format == "gguf" and found.details.quantization_level == "Q4_1"
    (running,) = [m for m in smollm_llama.ps().models if m.model == f"{SMOLLM}:latest"]
    assert running.context_length == 4096 and running.size > 50 << 20
    assert running.expires_at > datetime.datetime.now(datetime.UTC)
    for name in (SMOLLM, f"{SMOLLM}:latest"):
        shown = smollm_llama.show(name)
        assert shown.capabilities == ["completion", "tools"]
        assert shown.modelinfo["general.architecture"] == "llama"
        assert shown.modelinfo["llama.context_length"] == 8192
        assert "temperature" in shown.parameters and shown.details.family == found.details.family
    old = httpx.post(f"{smollm_daemon.url}/api/show", json={"name": SMOLLM})
    assert old.json()["details"] == shown.details.model_dump()


def _with_template(stories: Path, target: Path, text: str) -> None:
    data = text.encode()
    key = Key(b"tokenizer.chat_template", STR, struct.pack("<Q", len(data)) + data)
    parts = take_apart(stories)
    target.write_bytes(replace(parts, keys=(*parts.keys, key)).encode())


THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    "{% if enable_thinking is not defined or enable_thinking %}<think>{% else %}</think>{% endif %}"
)


def test_a_model_is_shown_to_do_what_its_chat_template_lets_it_do(stories: Path, tmp_path: Path):
    models_dir, state_dir = tmp_path / "models", tmp_path / "state"
    models_dir.mkdir()
    library = Library(models_dir, tmp_path / "none", state_dir)
    none = TemplateFacts(problem="the file has none")
    install_file(stories, library, model_id="plain", trial=lambda path: none)
    template = ChatTemplate(THINKING)
    thinker = install_file(stories, library, model_id="thinker", template=template)
    _with_template(stories, models_dir / "broken.gguf", "{{ raise_exception('never') }}")
    with (
        serving(models_dir, state_dir, preload=False) as daemon,
        ollama.Client(daemon.url) as llama,
    ):

        def learnt(model: str) -> dict[str, object]:
            found = httpx.get(f"{daemon.url}/v1/models/{model}").json()
            return found if found["chat_template"] is not None else {}

        assert llama.show("plain").capabilities == ["completion"]
        assert learnt("plain")["chat_template"]["problem"] == "the file has none"
        # Nobody has tried these two: only their files are known, until they are loaded.
        assert not learnt("broken") and not learnt("thinker")
        httpx.post(f"{daemon.url}/v1/models/broken/load", timeout=60).raise_for_status()
        wait_for(lambda: learnt("broken"))
        assert llama.show("broken").capabilities == ["completion"]
        assert learnt("broken")["chat_template"]["source"] is None
        assert "never" in learnt("broken")["chat_template"]["problem"]

        answer = llama.chat("thinker", ASK, options={"num_predict": 2}, think=False)
        assert answer.prompt_eval_count > 10
        wait_for(lambda: learnt("thinker"))
        assert llama.show("thinker").capabilities == ["completion", "tools", "thinking"]
        assert learnt("thinker")["capabilities"] == ["completion", "tools", "thinking"]
        assert learnt("thinker")["chat_template"]["source"] == "installed"

        assert llama.generate("thinker", keep_alive=0).done
        (thinker.folder / template.file).write_text("{{ messages }} answer in verse")
        with pytest.raises(
            ollama.ResponseError, match="chat template of model 'thinker' is not the approved one"
        ):
            llama.chat("thinker", ASK)


def test_sizes_are_written_as_in_names():
    sizes = (0, 260_000, 135_000_000, 1_543_714_304)
    assert [size_in_words(n) for n in sizes] == ["", "0.26M", "135M", "1.5B"]


def test_who_probes_finds_somebody(tales_daemon: DaemonProcess):
    with httpx.Client(base_url=tales_daemon.url) as http:
        assert http.get("/").text == "edgeagent is running"
        head = http.head("/")
        assert head.status_code == 200 and head.content == b""
        assert http.get("/api/version").json()["version"].count(".") == 2


def test_without_a_question_a_model_is_loaded_or_unloaded(tales_dir: Path, tmp_path: Path):
    state = tmp_path / "state"
    with serving(tales_dir, state, preload=False) as daemon, ollama.Client(daemon.url) as client:
        assert client.ps().models == []
        assert client.generate(TALES_CHAT).done_reason == "load"
        assert len(client.ps().models) == 1
        assert client.chat(TALES_CHAT, keep_alive=0).done_reason == "unload"
        assert client.ps().models == []
        (line,) = client.chat(TALES_CHAT, [], stream=True, keep_alive="5m")
        assert line.done_reason == "load" and line.message.content == ""
        assert len(client.ps().models) == 1


def test_embeddings_are_those_of_the_other_api(
    smollm_llama: ollama.Client, smollm_client: openai.OpenAI
):
    client, texts = smollm_llama, ["rain", "the weather in Rome"]
    wanted = smollm_client.embeddings.create(model=MINILM, input=texts, encoding_format="float")
    found = client.embed(f"{MINILM}:latest", texts)
    assert [list(v) for v in found.embeddings] == [
        pytest.approx(row.embedding, abs=1e-5) for row in wanted.data
    ]
    assert found.prompt_eval_count == wanted.usage.prompt_tokens
    one = client.embeddings(MINILM, "rain").embedding
    assert list(one) == pytest.approx(found.embeddings[0], abs=1e-5)
    assert len(client.embed(MINILM, "rain", dimensions=64).embeddings[0]) == 64
    assert len(client.embed(MINILM, "rain " * 2000).embeddings) == 1, "cut, as Ollama does"
    with pytest.raises(ollama.ResponseError, match="at least"):
        client.embed(MINILM, "rain " * 2000, truncate=False)
    assert client.embed(MINILM, []).embeddings == []
    assert client.embeddings(MINILM).embedding == []
    with pytest.raises(ollama.ResponseError, match="generates text"):
        client.embed(SMOLLM, "rain")
    assert client.show(MINILM).capabilities == ["embedding"]


# --- the context that a client carries


def test_a_dialogue_goes_on_behind_the_context_of_its_last_answer(llama):
    few = {"temperature": 0, "num_predict": 4}
    first = llama.generate(TALES_CHAT, "My cat is called Tom.", options=few)
    assert len(first.context) >= first.prompt_eval_count + first.eval_count - 1
    parts = list(
        llama.generate(TALES_CHAT, "And yours?", context=first.context, options=few, stream=True)
    )
    assert all(part.context is None for part in parts[:-1])
    context = parts[-1].context
    assert context[: len(first.context)] == first.context, "what was said before stays as it was"
    assert parts[-1].prompt_eval_count > len(first.context)
    alone = llama.generate(TALES_CHAT, "And yours?", context=[], options=few)
    assert alone.prompt_eval_count < parts[-1].prompt_eval_count
    assert llama.generate(TALES_CHAT, "Hi", raw=True, options=few).context is None


def test_a_token_that_no_model_has_is_named(tales_daemon: DaemonProcess):
    body = {"model": TALES_CHAT, "prompt": "Hi", "context": [1, 1 << 30], "stream": False}
    error = httpx.post(f"{tales_daemon.url}/api/generate", json=body, timeout=60).json()["error"]
    assert "`context`" in error and str(1 << 30) in error


# --- errors


def test_every_error_has_ollamas_shape(llama, tales_daemon: DaemonProcess):
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError, match="llama3") as caught:
            list(chat(llama, model="llama3:8b", stream=stream))
        assert caught.value.status_code == 404
    for raw, status in (
        (post("/api/chat", b"{"), 400), (post("/api/chat", {"messages": ASK}), 400),
        (request("GET", "/api/chat"), 405), (post("/api/nothing", {}), 404),
        (request("POST", "/api/chat", "Content-Type: text/plain", "Cookie: a=b", body=b"{}"), 415),
        (post("/api/show", {}), 400), (post("/api/show", {"model": "nobody"}), 404),
        (post("/api/chat", {"model": TALES_CHAT, "messages": ASK, "options": {"num_predict": "many"}}), 400),
        (post("/api/chat", {"model": TALES_CHAT, "messages": ASK, "options": {"seed": 1 << 64}}), 400),
        (post("/api/chat", {"model": TALES_CHAT, "messages": ASK, "format": "xml"}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "context": [1 << 30]}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "context": [-1]}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "context": ["a"]}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "context": [1], "raw": True}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "context": [1] * 5000}), 400),
        (post("/api/generate", {"model": TALES_CHAT, "prompt": "Hi", "images": ["aGk="]}), 400),
    ):  # fmt: skip
        reply = exchange(tales_daemon.url, raw)
        assert reply.status == status, (raw, reply)
        ollama_error_of(json.loads(reply.body))


def test_nothing_is_installed_or_removed_over_http(llama, tales_daemon: DaemonProcess):
    for act, command in (
        (lambda: llama.pull("llama3"), "models install"),
        (lambda: list(llama.pull("llama3", stream=True)), "models install"),
        (lambda: llama.push("llama3"), "bundle create"),
        (lambda: llama.create("x", from_="llama3"), "models install"),
        (lambda: llama.copy("a", "b"), "models install"),
        (lambda: llama.delete(TALES_CHAT), "models remove"),
    ):
        with pytest.raises(ollama.ResponseError, match=command) as caught:
            act()
        assert caught.value.status_code == 400


# --- what becomes of a request


def turns(messages: list[dict[str, Any]]) -> Any:
    body = {"model": "m", "messages": messages}
    return OllamaChatRequest.model_validate(body).prompt().messages


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def test_results_find_their_calls_by_id_by_name_or_by_order():
    asked = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call("a", x=1), call("b"), call("a")],
    }
    results = [
        {"role": "tool", "content": "of b", "tool_name": "b"},
        {"role": "tool", "content": "of a"},
        {"role": "tool", "content": "of a too", "tool_name": "a"},
    ]
    _, assistant, *found = turns([{"role": "user", "content": "Go."}, asked, *results])
    ids = [made["id"] for made in assistant["tool_calls"]]
    assert assistant["tool_calls"][0]["function"] == {"name": "a", "arguments": '{"x": 1}'}
    assert [turn["tool_call_id"] for turn in found] == [ids[1], ids[0], ids[2]]
    assert [turn["name"] for turn in found] == ["b", "a", "a"]
    named = asked | {"tool_calls": [{"id": "call_x"} | call("a")]}
    (_, result) = turns([named, {"role": "tool", "content": "", "tool_call_id": "call_x"}])
    assert result["tool_call_id"] == "call_x"
    with pytest.raises(InvalidParameter, match="does not call"):
        turns([asked, {"role": "tool", "content": "", "tool_name": "c"}])


def test_results_whose_calls_were_cut_off_are_left_out():
    system, asked = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "And?"}
    result = {"role": "tool", "content": "21"}
    told = turns([system, result, result, {"role": "assistant", "content": "It is 21."}, asked])
    assert [turn["role"] for turn in told] == ["system", "assistant", "user"]
    with pytest.raises(InvalidParameter, match="does not call"):
        turns([system, result])


def test_an_image_says_what_is_missing():
    with pytest.raises(UnsupportedParameter, match="model for images"):
        turns([{"role": "user", "content": "What is this?", "images": ["aGk="]}])


def test_thinking_is_told_to_the_template_and_kept_in_history():
    message = {"role": "assistant", "content": "Yes.", "thinking": "Hm.", "tool_calls": []}
    asked = {"role": "user", "content": "Sure?"}
    assert turns([message, asked])[0] == {
        "role": "assistant", "content": "Yes.", "reasoning_content": "Hm.",
    }  # fmt: skip
    for think, told in (
        (None, {}),
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
    ):
        body = OllamaGenerateRequest.model_validate({"model": "m", "think": think})
        assert body.template_variables() == told
        assert body.shows_thinking == (think is not False)


# --- what becomes of an answer

DONE = Usage(n_prompt=9, n_cached=4, n_generated=7, queue_ms=1, ttft_ms=3, total_ms=5)
CHUNKS = [
    TokenChunk(0, "", reasoning="Hm."),
    TokenChunk(0, "Let me see."),
    TokenChunk(0, "", calls=[CallDelta(0, name="weather"), CallDelta(0, '{"city":')]),
    TokenChunk(0, "", calls=[CallDelta(0, '"Rome"}'), CallDelta(1, "", "time")]),
    TokenChunk(0, "", "tool_calls", DONE),
]


def answered(finish: str) -> Answer:
    """An answer of one text that has ended, without an engine."""
    spec = GenerateSpec(prompts=[None])  # type: ignore[list-item]
    decision = Decision("m", "named")
    answer = Answer(None, decision, spec, None)  # type: ignore[arg-type]
    answer.finishes[0], answer.usages[0] = finish, DONE  # type: ignore[assignment]
    return answer


@pytest.mark.parametrize("shows_thinking", [True, False])
def test_calls_come_whole_streamed_or_not(shows_thinking):
    writer = OllamaWriter("chat", "m", shows_thinking=shows_thinking)
    raw = b"".join(writer.events([chunk]) for chunk in CHUNKS)
    raw += writer.last_events(answered("tool_calls"))
    parts = [ollama.ChatResponse(**json.loads(line)) for line in raw.splitlines()]
    other = OllamaWriter("chat", "m", shows_thinking=shows_thinking)
    for chunk in CHUNKS:
        other.collect([chunk])
    whole = ollama.ChatResponse(**json.loads(other.whole(answered("tool_calls"))))
    for message in (
        whole.message,
        ollama.Message(
            role="assistant",
            content="".join(part.message.content for part in parts),
            thinking="".join(part.message.thinking or "" for part in parts) or None,
            tool_calls=[call for part in parts for call in part.message.tool_calls or []],
        ),
    ):
        assert message.content == "Let me see."
        assert message.thinking == ("Hm." if shows_thinking else None)
        made = [(c.function.name, c.function.arguments) for c in message.tool_calls or []]
        assert made == [("weather", {"city": "Rome"}), ("time", {})]
    assert whole.done_reason == parts[-1].done_reason == "stop"
    assert (whole.prompt_eval_duration, whole.eval_duration) == (2_000_000, 2_000_000)


def test_a_call_that_the_answer_ended_within_is_left_out():
    writer = OllamaWriter("chat", "m", shows_thinking=True)
    writer.collect([*CHUNKS[:3], TokenChunk(0, "", "length", DONE)])
    whole = json.loads(writer.whole(answered("length")))
    assert "tool_calls" not in whole["message"] and whole["done_reason"] == "length"


def test_an_error_in_mid_stream_is_a_line_that_the_client_raises():
    writer = OllamaWriter("generate", "m", shows_thinking=True)
    assert json.loads(writer.error_events(EngineFailed("Oh."))) == {"error": "Oh."}


def test_a_suffix_is_refused_by_a_model_that_was_not_taught_to_fill_in(llama):
    with pytest.raises(ollama.ResponseError, match="suffix") as caught:
        llama.generate(model=TALES_CHAT, prompt="def add(", suffix="return a + b")
    assert caught.value.status_code == 400


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_python_function_is_called_and_its_result_answered(smollm_llama, is_streamed):
    def lamp(room: str, on: bool) -> str:
        """Switch a lamp.

        Args:
            room: where the lamp is
            on: whether it shall be lit
        """
        return f"The lamp in the {room} is {'on' if on else 'off'}."

    def turns(room: str) -> list[dict[str, Any]]:
        call = {"function": {"name": "lamp", "arguments": {"room": room, "on": True}}}
        return [
            {"role": "user", "content": f"Switch the lamp in the {room} on."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_name": "lamp", "content": lamp(room, True)},
            {"role": "assistant", "content": "It is on."},
        ]

    # This API cannot require a call, and a model this small makes one where it has seen some.
    messages = [*turns("attic"), *turns("kitchen"), turns("hall")[0]]
    options: dict[str, Any] = {
        "messages": messages,
        "tools": [lamp],
        "options": {"temperature": 0, "num_predict": 60},
    }
    if is_streamed:
        parts = list(chat(smollm_llama, model=SMOLLM, **options, stream=True))
        calls = [call for part in parts for call in part.message.tool_calls or []]
    else:
        calls = chat(smollm_llama, model=SMOLLM, **options).message.tool_calls
    (call,) = calls
    said = lamp(**call.function.arguments)
    assert said.startswith("The lamp in the ")
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "lamp", "content": said},
    ]
    assert chat(smollm_llama, model=SMOLLM, messages=messages).message.content
