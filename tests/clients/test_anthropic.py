"""Sessions of Anthropic's own client beyond one message: tool runner, threads, Claude Code's prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from edgeagent.api.anthropic.schemas import MessagesRequest
from tests.conftest import TALES_CHAT, DaemonProcess
from tests.lazy import lazily

if TYPE_CHECKING:
    import anthropic
else:
    anthropic = lazily("anthropic")

ASK: list[Any] = [{"role": "user", "content": "Switch the lamp in the hall on."}]
COLD = {"extra_body": {"temperature": 0}}
LINE = "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch={};"


@pytest.fixture(scope="module")
def claude(tales_daemon: DaemonProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=tales_daemon.url, api_key="none", max_retries=0, timeout=60,
        _strict_response_validation=True,
    ) as client:  # fmt: skip
        yield client


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_tool_runner_goes_on_without_a_thread_and_runs_the_tool(claude, is_stream):
    ran: list[tuple[str, bool]] = []

    @anthropic.beta_tool
    def lamp(room: Literal["hall", "attic"], on: bool) -> str:
        """Switch a lamp.

        Args:
            room: where the lamp is
            on: whether it shall be lit
        """
        ran.append((room, on))
        return "Done."

    runner = claude.beta.messages.tool_runner(
        model=TALES_CHAT, max_tokens=32_000, tools=[lamp], messages=ASK, max_iterations=2,
        tool_choice={"type": "any"}, stream=is_stream, **COLD,
    )  # fmt: skip
    messages = [turn.get_final_message() if is_stream else turn for turn in runner]
    assert len(messages) == 2 and len(ran) >= 1
    assert all(room in ("hall", "attic") and isinstance(on, bool) for room, on in ran)
    assert messages[0].stop_reason == "tool_use"


def test_a_thread_sends_the_whole_conversation_where_it_may(claude):
    thread = claude.beta.messages.thread(
        model=TALES_CHAT, max_tokens=8, unsupported_request_behavior="continue_unthreaded", **COLD
    )
    first = thread.send({"role": "user", "content": "Name a colour."})
    second = thread.send({"role": "user", "content": "Another one."})
    assert first.content[0].text and second.content[0].text
    assert second.usage.cache_read_input_tokens > 0, "the first turn was sent again, and found"
    strict = claude.beta.messages.thread(model=TALES_CHAT, max_tokens=8)
    with pytest.raises(anthropic.BadRequestError) as caught:
        strict.send({"role": "user", "content": "Name a colour."})
    assert caught.value.details is not None
    assert caught.value.details.error_code == "thread_unsupported_request"


def n_input(usage: Any) -> int:
    return int(usage.input_tokens + (usage.cache_read_input_tokens or 0))


def test_a_line_that_changes_with_the_session_costs_no_prefix(claude):
    rules = "Follow the rules of the house carefully. " * 20
    usages = []
    for session in ("AAAA1", "BBBBB2"):
        system: Any = [
            {"type": "text", "text": LINE.format(session)},
            {"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}},
        ]
        ask: Any = [{"role": "user", "content": f"Hello, it is {session}."}]
        made = claude.messages.create(model=TALES_CHAT, max_tokens=1, system=system, messages=ask)
        usages.append(made.usage)
    assert usages[1].cache_read_input_tokens > 150
    plain = claude.messages.create(model=TALES_CHAT, max_tokens=1, system=rules, messages=ask)
    assert n_input(plain.usage) == n_input(usages[1])
    counted = claude.messages.count_tokens(model=TALES_CHAT, system=system, messages=ask)
    assert counted.input_tokens == n_input(plain.usage)


def system_of(system: Any) -> str | None:
    body = {"model": "m", "max_tokens": 1, "messages": ASK, "system": system}
    first = MessagesRequest.model_validate(body).prompt().messages[0]
    return str(first["content"]) if first["role"] == "system" else None


def texts(*parts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} for part in parts]


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (LINE, None), (texts(LINE), None), (texts(LINE, "Be kind."), "Be kind."),
        (f"{LINE}\nBe kind.", "Be kind."), (f"{LINE}\n\nBe kind.\nAlways.", "Be kind.\nAlways."),
        (texts(f"  {LINE.upper()}\nBe kind.", "Now."), "Be kind.\n\nNow."),
        (f"Be kind.\n{LINE}", f"Be kind.\n{LINE}"), (texts("Be kind.", LINE), f"Be kind.\n\n{LINE}"),
        ("x-anthropic-billing: no", "x-anthropic-billing: no"), ("Be kind.", "Be kind."),
    ],
)  # fmt: skip
def test_only_the_billing_line_at_the_beginning_is_left_out(system, told):
    assert system_of(system) == told


def test_trials_that_a_client_wants_change_nothing_and_are_not_logged(tales_daemon):
    headers = {"anthropic-beta": "context-1m-2025-08-07,evil\x1b[31m", "anthropic-version": "x"}
    body = {"model": TALES_CHAT, "max_tokens": 1, "messages": ASK}
    reply = httpx.post(f"{tales_daemon.url}/v1/messages?beta=true", json=body, headers=headers)
    assert reply.status_code == 200
    log = tales_daemon.log.read_text()
    assert "context-1m" not in log and "\x1b" not in log


def test_a_thread_is_refused_in_words_that_a_person_can_read(tales_daemon):
    body = {"model": TALES_CHAT, "max_tokens": 1, "messages": ASK, "thread": {"type": "new"}}
    reply = httpx.post(f"{tales_daemon.url}/v1/messages", json=body)
    error = json.loads(reply.content)["error"]
    assert reply.status_code == 400 and error["type"] == "invalid_request_error"
    assert "whole conversation" in error["message"]
    assert error["details"] == {
        "error_code": "thread_unsupported_request", "unsupported": ["thread"],
    }  # fmt: skip
