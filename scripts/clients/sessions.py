"""What real clients do with a daemon: `python sessions.py URL MODEL [CLIENT...]` prints a table."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = Callable[[str, str], None]
CASES: dict[str, list[tuple[str, Case]]] = {}
ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]
TOO_LONG: list[Any] = [{"role": "user", "content": "word " * 200_000}]
LAMP_ASK = "Switch the lamp in the hall on."


class Weak(Exception):
    """The client worked; the model did not do what it was asked."""


def case(client: str, title: str) -> Callable[[Case], Case]:
    """Make a function a case of a client. It raises Weak, or anything else where something is wrong."""

    def add(function: Case) -> Case:
        CASES.setdefault(client, []).append((title, function))
        return function

    return add


def needs(value: Any, why: str) -> Any:
    if not value:
        raise Weak(why)
    return value


def sound(is_so: bool, what: str) -> None:
    if not is_so:
        raise RuntimeError(what)


# --- openai


def _openai(url: str) -> Any:
    import openai

    return openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120,
        _strict_response_validation=True,
    )  # fmt: skip


@case("openai", "chat, streamed and whole")
def openai_chat(url: str, model: str) -> None:
    client = _openai(url)
    whole = client.chat.completions.create(model=model, messages=ASK, max_tokens=16)
    sound(whole.usage.prompt_tokens > 0, "no usage")
    parts = client.chat.completions.create(model=model, messages=ASK, max_tokens=16, stream=True)
    needs("".join(part.choices[0].delta.content or "" for part in parts), "no text")


@case("openai", "responses, streamed and continued")
def openai_responses(url: str, model: str) -> None:
    client = _openai(url)
    made = client.responses.create(model=model, input="Hello", max_output_tokens=16, stream=True)
    events = list(made)
    sound(events[0].type == "response.created", "wrong first event")
    sound(events[-1].type in ("response.completed", "response.incomplete"), "wrong last event")
    first = events[-1].response
    again = client.responses.create(
        model=model, input="And you?", previous_response_id=first.id, max_output_tokens=16
    )
    needs(again.output_text, "no text")


@case("openai", "a custom tool and a hosted one")
def openai_custom(url: str, model: str) -> None:
    made = _openai(url).responses.create(
        model=model, input="Note: milk.", max_output_tokens=100, temperature=0,
        tools=[{"type": "custom", "name": "note"}, {"type": "web_search"}],
        tool_choice={"type": "custom", "name": "note"},
    )  # fmt: skip
    sound(made.output[0].type == "custom_tool_call", "no custom call")


# --- anthropic


def _anthropic(url: str) -> Any:
    import anthropic

    return anthropic.Anthropic(
        base_url=url, api_key="none", max_retries=0, timeout=120, _strict_response_validation=True
    )


@case("anthropic", "messages, streamed and whole")
def anthropic_messages(url: str, model: str) -> None:
    client = _anthropic(url)
    made = client.messages.create(model=model, messages=ASK, max_tokens=16)
    sound(made.usage.output_tokens > 0, "no usage")
    with client.messages.stream(model=model, messages=ASK, max_tokens=16) as stream:
        needs("".join(stream.text_stream), "no text")


@case("anthropic", "tool_runner")
def anthropic_runner(url: str, model: str) -> None:
    from anthropic import beta_tool

    ran = []

    @beta_tool
    def lamp(on: bool) -> str:
        """Switch the lamp.

        Args:
            on: whether it shall be lit
        """
        ran.append(on)
        return "Done."

    runner = _anthropic(url).beta.messages.tool_runner(
        model=model, max_tokens=32_000, tools=[lamp], max_iterations=2,
        messages=[{"role": "user", "content": LAMP_ASK}], tool_choice={"type": "any"},
    )  # fmt: skip
    sound(len(list(runner)) == 2 and len(ran) >= 1, "the tool did not run")


@case("anthropic", "a thread, and the models")
def anthropic_thread(url: str, model: str) -> None:
    client = _anthropic(url)
    thread = client.beta.messages.thread(
        model=model, max_tokens=16, unsupported_request_behavior="continue_unthreaded"
    )
    needs(thread.send(ASK[0]).content, "no text")
    sound(model in {found.id for found in client.models.list()}, "the model is not listed")


# --- ollama


@case("ollama", "chat, generate, tools, format")
def ollama_session(url: str, model: str) -> None:
    import ollama

    client = ollama.Client(host=url, timeout=120)
    few = {"num_predict": 16}
    needs(client.chat(model, ASK, options=few).message.content, "no text")
    needs(
        "".join(p.response for p in client.generate(model, "Hi", options=few, stream=True)), "none"
    )

    def lamp(on: bool) -> str:
        """Switch the lamp.

        Args:
            on: whether it shall be lit
        """
        return str(on)

    asked = [{"role": "user", "content": LAMP_ASK}]
    client.chat(model, asked, tools=[lamp], options={"num_predict": 60})
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    made = client.chat(model, ASK, format=schema, options={"num_predict": 60})
    sound(made.message.content.startswith("{"), "no object")


# --- litellm

for _prefix, _path in (("openai", "/v1"), ("anthropic", ""), ("ollama", ""), ("ollama_chat", "")):

    def _session(url: str, model: str, prefix: str = _prefix, path: str = _path) -> None:
        import litellm

        litellm.suppress_debug_info = True
        asked: dict[str, Any] = {
            "model": f"{prefix}/{model}", "api_base": url + path, "api_key": "none", "timeout": 120,
            "max_retries": 0,
        }  # fmt: skip
        made = litellm.completion(**asked, messages=ASK, max_tokens=16)
        sound(made.usage.prompt_tokens > 0, "no usage")
        needs(made.choices[0].message.content, "no text")
        parts = litellm.completion(**asked, messages=ASK, max_tokens=16, stream=True)
        needs("".join(part.choices[0].delta.content or "" for part in parts), "no text")
        if prefix in ("openai", "anthropic"):
            try:
                litellm.completion(**asked, messages=TOO_LONG, max_tokens=16)
            except litellm.ContextWindowExceededError:
                return
            raise RuntimeError("an overflow was answered")

    case("litellm", f"{_prefix}/: text, stream, overflow")(_session)


# --- langchain-openai


@case("langchain", "invoke, stream, structured output")
def langchain_session(url: str, model: str) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Lamp(BaseModel):
        """The state of a lamp."""

        on: bool

    chat = ChatOpenAI(
        model=model, base_url=f"{url}/v1", api_key="none", max_tokens=60, max_retries=0
    )
    needs(chat.invoke("Name a colour.").content, "no text")
    needs("".join(str(part.content) for part in chat.stream("Name a colour.")), "no text")
    sound(isinstance(chat.with_structured_output(Lamp).invoke(LAMP_ASK), Lamp), "no object")


# --- openai-agents


@case("openai-agents", "a run with a tool")
def agents_session(url: str, model: str) -> None:
    import openai
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
    from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError

    set_tracing_disabled(True)

    @function_tool
    def lamp(on: bool) -> str:
        """Switch the lamp."""
        return "Done."

    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    agent = Agent(
        name="a", instructions="Be brief.", tools=[lamp],
        model=OpenAIResponsesModel(model=model, openai_client=client),
    )  # fmt: skip
    try:
        made = asyncio.run(Runner.run(agent, LAMP_ASK, max_turns=3))
    except (MaxTurnsExceeded, ModelBehaviorError) as exc:  # it talked or called without an end
        raise Weak(str(exc)) from exc
    needs(made.final_output, "no text")


# --- pydantic-ai


@case("pydantic-ai", "text, and an object")
def pydantic_ai_session(url: str, model: str) -> None:
    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Lamp(BaseModel):
        on: bool

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    chat = OpenAIChatModel(model, provider=provider)
    needs(
        Agent(chat, model_settings={"max_tokens": 16}).run_sync("Name a colour.").output, "no text"
    )
    made = Agent(chat, output_type=Lamp, model_settings={"max_tokens": 100}).run_sync(LAMP_ASK)
    sound(isinstance(made.output, Lamp), "no object")


# --- instructor


@case("instructor", "an object")
def instructor_session(url: str, model: str) -> None:
    import instructor
    from pydantic import BaseModel

    class Lamp(BaseModel):
        on: bool

    client = instructor.from_openai(_openai(url))
    asked: list[Any] = [{"role": "user", "content": LAMP_ASK}]
    made = client.chat.completions.create(
        model=model, messages=asked, response_model=Lamp, max_tokens=100, max_retries=1
    )
    sound(isinstance(made, Lamp), "no object")


# --- llm


@case("llm", "a prompt on the command line")
def llm_session(url: str, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(
            f"- model_id: edge\n  model_name: {model}\n  api_base: {url}/v1\n  api_key_name: edge\n"
        )
        Path(folder, "keys.json").write_text('{"edge": "none"}')
        made = subprocess.run(
            [str(Path(sys.executable).parent / "llm"), "-m", "edge", "-o", "max_tokens", "16", "Hi"],
            env=os.environ | {"LLM_USER_PATH": folder}, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    sound(made.returncode == 0, made.stderr[-200:])
    needs(made.stdout.strip(), "a blank line")


# --- the AI SDK


def ai_sdk(url: str, model: str) -> list[tuple[str, str, str]]:
    """Its cases, where node and the packages are there."""
    folder = os.environ.get("AI_SDK_DIR")
    if folder is None or shutil.which("node") is None:
        return []
    script = Path(folder, "ai_sdk.mjs")
    shutil.copy(Path(__file__).with_name("ai_sdk.mjs"), script)
    made = subprocess.run(
        ["node", str(script), url, model], capture_output=True, text=True, timeout=300, cwd=folder
    )
    rows = [line.split("\t") for line in made.stdout.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows] or [("start", "FAILED", made.stderr[-200:])]


def outcome(function: Case, url: str, model: str) -> tuple[str, str]:
    try:
        function(url, model)
    except Weak as exc:
        return "model", str(exc)
    except Exception as exc:
        return "FAILED", f"{type(exc).__name__}: {exc}"
    return "passed", ""


def main() -> int:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks the network for prices otherwise
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("client", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    args = parser.parse_args()
    n_failed = 0

    def tell(client: str, title: str, result: str, why: str, took_s: float) -> None:
        nonlocal n_failed
        n_failed += result == "FAILED"
        told = " ".join(why.split())[:160]
        print(f"{client:14} {title:38} {result:7} {took_s:6.1f} s  {told}", flush=True)

    for client in args.client or CASES:
        for title, function in CASES.get(client, []):
            began = time.monotonic()
            result, why = outcome(function, args.url, args.model)
            tell(client, title, result, why, time.monotonic() - began)
    if not args.client or "ai-sdk" in args.client:
        for title, result, why in ai_sdk(args.url, args.model):
            tell("ai-sdk", title, result, why, 0.0)
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
