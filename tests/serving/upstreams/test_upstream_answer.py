"""Answers of upstreams, from a scripted server on this event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from edgeagent.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EdgeAgentError,
    Forbidden,
    InvalidParameter,
    StorageFull,
    UnsupportedParameter,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from edgeagent.routing.upstreams.outgoing_request import BLANK
from edgeagent.routing.upstreams.upstream_access import Sender
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings.upstreams import UpstreamSettings
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import Tool, ToolUse
from scripts.faults.upstream_server import ScriptedServer, certified, event, piece

BIG = "big"
SENDER = Sender("key_1", "ann", "any", "req_1")
TEXT = "one two three four"


def table(server: ScriptedServer, name: str = "one", **more: Any) -> UpstreamSettings:
    given = {"keys": ["ann"], "connect_timeout_s": 10, "timeout_s": 10} | more
    return UpstreamSettings(name=name, url=server.url, models={BIG: "their-big"}, **given)


def spec(text: str = "Hello", **more: Any) -> GenerateSpec:
    messages = [{"role": "user", "content": text}]
    return GenerateSpec(prompts=[Prompt(messages=messages)], sampling=BLANK, **more)


@asynccontextmanager
async def serving(*servers: ScriptedServer, **more: Any):
    """Upstreams for these servers, started."""
    for server in servers:
        await server.start()
    tables = [table(server, f"up{n}", **more) for n, server in enumerate(servers)]
    upstreams = Upstreams(tables)
    try:
        yield upstreams
    finally:
        await upstreams.close()
        for server in servers:
            await server.stop()


async def answer(upstreams: Upstreams, request: GenerateSpec | None = None, sender=SENDER):
    """The chunks of one answer. Raises what ends it."""
    async with upstreams.lease(BIG, sender) as client:
        generation = client.generate(request or spec())
        try:
            return [chunk async for chunk in generation]
        finally:
            generation.cancel()


def text_of(chunks) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_an_answer_passes_with_its_text_end_and_counts():
    server = ScriptedServer()
    async with serving(server) as upstreams:
        chunks = await answer(upstreams, spec(max_tokens=9, stop=["x"]))
    assert text_of(chunks) == TEXT
    last = chunks[-1]
    assert last.finish == "stop"
    assert (last.usage.n_prompt, last.usage.n_cached, last.usage.n_generated) == (11, 5, 4)
    assert server.heads[0][":path"] == "/v1/chat/completions"
    assert "authorization" not in server.heads[0]
    assert server.heads[0]["accept-encoding"] == "identity"
    assert server.bodies == [{
        "model": "their-big", "stream": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9, "stop": ["x"],
    }]  # fmt: skip


async def test_the_key_of_a_file_is_sent_and_what_is_sent_is_audited_before(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    key.chmod(0o600)
    notes: list[tuple[str, str]] = []
    server = ScriptedServer()
    async with serving(server, key_file=key) as upstreams:

        async def note(key_id: str, what: str) -> None:
            notes.append((key_id, what))
            assert not server.bodies

        upstreams.note = note
        await answer(upstreams, spec("my secret"))
    assert server.heads[0]["authorization"] == "bearer sk-secret"
    what = "upstream:up0 model:their-big request:req_1 messages:1 characters:9 tools:0"
    assert notes == [("key_1", what)]
    assert "upstream_request" in caplog.text
    assert "sk-secret" not in caplog.text and "my secret" not in caplog.text


async def test_what_cannot_be_audited_is_not_sent():
    server = ScriptedServer()
    async with serving(server) as upstreams:

        async def full(key_id: str, what: str) -> None:
            raise StorageFull("The disk is full.")

        upstreams.note = full
        with pytest.raises(StorageFull):
            await answer(upstreams)
        assert upstreams.all()[0].n_running == 0
    assert server.n_connections == 0


REFUSED = [
    Sender("key_1", "ann", "local"),
    Sender("key_1", "ann", "site"),
    Sender("key_2", "bob", "any"),
]


@pytest.mark.parametrize("sender", REFUSED)
async def test_a_request_that_may_not_leave_opens_no_connection(sender):
    server = ScriptedServer()
    async with serving(server) as upstreams:
        with pytest.raises(Forbidden, match="may not be sent"):
            await answer(upstreams, sender=sender)
    assert server.n_connections == 0


# What the server does, the error, and whether another upstream is asked with repeats = broken.
FAULTS = [
    ("silent", UpstreamTimeout, False),
    ("500", UpstreamFailed, False),
    ("502", UpstreamFailed, False),
    ("503", UpstreamUnavailable, True),
    ("429", UpstreamUnavailable, True),
    ("401", UpstreamUnavailable, True),
    ("404", UpstreamUnavailable, True),
    ("307", UpstreamUnavailable, True),
    ("400", ContextLengthExceeded, False),
    ("hang_up", UpstreamUnavailable, True),
    ("head_only", UpstreamUnavailable, True),
    ("wrong_schema", UpstreamFailed, False),
    ("html", UpstreamFailed, False),
    ("no_http", UpstreamFailed, False),
    ("giant", UpstreamFailed, False),
    ("bomb", UpstreamFailed, False),
]


@pytest.mark.parametrize(("behaviour", "error", "is_repeated"), FAULTS)
async def test_a_fault_is_told_or_repeated_elsewhere_by_the_policy(behaviour, error, is_repeated):
    bad, good = ScriptedServer(behaviour), ScriptedServer()
    timeout_s = 0.1 if behaviour == "silent" else 10
    async with serving(bad, timeout_s=timeout_s) as upstreams:
        with pytest.raises(error) as caught:
            await answer(upstreams)
        assert "\x1b" not in caught.value.message
    async with serving(bad, good, timeout_s=timeout_s) as upstreams:
        if is_repeated:
            assert text_of(await answer(upstreams)) == TEXT
        else:
            with pytest.raises(error):
                await answer(upstreams)
    assert (len(bad.bodies), len(good.bodies)) == (2, int(is_repeated))


@pytest.mark.parametrize("behaviour", ["silent", "500", "wrong_schema"])
async def test_with_repeats_silent_another_upstream_is_asked(behaviour):
    bad, good = ScriptedServer(behaviour), ScriptedServer()
    timeout_s = 0.3 if behaviour == "silent" else 10
    async with serving(bad, good, repeats="silent", timeout_s=timeout_s) as upstreams:
        assert text_of(await answer(upstreams)) == TEXT


@pytest.mark.parametrize("behaviour", ["hang_up", "head_only"])
async def test_with_repeats_refused_a_broken_connection_is_not_repeated(behaviour):
    bad, good = ScriptedServer(behaviour), ScriptedServer()
    async with serving(bad, good, repeats="refused") as upstreams:
        with pytest.raises(UpstreamFailed):
            await answer(upstreams)
    assert not good.bodies


async def test_half_a_stream_is_never_repeated():
    half, good = ScriptedServer("half"), ScriptedServer()
    async with (
        serving(half, good, repeats="silent") as upstreams,
        upstreams.lease(BIG, SENDER) as client,
    ):
        generation = client.generate(spec())
        assert text_of(await generation.take()) == "half "
        with pytest.raises(UpstreamFailed, match="ended the connection within its answer"):
            await generation.take()
    assert not good.bodies


async def test_a_stream_of_comments_ends_with_the_limit_of_an_answer():
    server = ScriptedServer("endless")
    async with serving(server, max_answer_s=0.2) as upstreams:
        with pytest.raises(UpstreamTimeout, match=r"0\.2 s"):
            await answer(upstreams)


async def test_an_answer_that_is_longer_than_its_limit_does_not_close_the_upstream():
    server = ScriptedServer()
    server.pieces = [piece({"content": "x"})] * 1000
    server.delay_s = 0.05
    async with serving(server, max_answer_s=0.2, breaker_failures=1) as upstreams:
        with pytest.raises(UpstreamTimeout, match=r"had not ended after 0\.2 s"):
            await answer(upstreams)
        (upstream,) = upstreams.all()
        assert not upstream.is_open and upstream.n_by_outcome["unfinished"] == 1


async def test_a_kept_connection_that_the_upstream_closes_costs_no_request():
    for repeats, n_answered in (("broken", 3), ("refused", 1)):
        server = ScriptedServer()
        server.keeps = True
        async with serving(server, repeats=repeats) as upstreams:
            for n in range(3):
                if n < n_answered:
                    assert text_of(await answer(upstreams, spec(f"q{n}"))) == TEXT
                else:
                    with pytest.raises(UpstreamFailed, match="before it answered"):
                        await answer(upstreams, spec(f"q{n}"))
                    break
        assert server.n_dropped == (2 if repeats == "broken" else 1)
        assert server.n_answered == {f"q{n}": 1 for n in range(n_answered)}


async def test_several_prompts_of_llama_server_begin_with_null_and_count_each_on_its_own():
    server = ScriptedServer()

    def text(index: int, text: str, finish: str | None = None, **more: Any) -> bytes:
        choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
        return event(choices=[choice], **more)

    server.pieces = [
        b"data: null\n\n", text(1, " g"), text(0, ")"), text(1, " h"),
        text(1, "", "length", usage={"completion_tokens": 2, "prompt_tokens": 4}),
        text(0, "", "length", usage={"completion_tokens": 1, "prompt_tokens": 2}),
        b"data: [DONE]\n\n",
    ]  # fmt: skip
    prompts = [Prompt(text="a b"), Prompt(text="c d e f")]
    async with serving(server) as upstreams:
        chunks = await answer(upstreams, GenerateSpec(prompts=prompts, sampling=BLANK))
    ends = {chunk.index: chunk.usage for chunk in chunks if chunk.finish is not None}
    assert [ends[n].n_generated for n in (0, 1)] == [1, 2]
    assert sum(ends[n].n_prompt for n in (0, 1)) == 6


# Its pieces, and the tokens of the prompt that count: 400 characters, or what it says.
UNCOUNTED = [
    ([piece({"content": "x"}, "stop"), b"data: [DONE]\n\n"], 100),
    ([piece({"content": "x"}, "stop"), event(choices=[], usage={}), b"data: [DONE]\n\n"], 100),
    ([event(choices=[], usage={"prompt_tokens": 7}), piece({}, "stop"), b"data: [DONE]\n\n"], 7),
]


@pytest.mark.parametrize(("pieces", "n_prompt"), UNCOUNTED)
async def test_a_prompt_counts_where_the_upstream_does_not_count_it(pieces, n_prompt):
    server = ScriptedServer()
    server.pieces = pieces
    async with serving(server) as upstreams:
        chunks = await answer(upstreams, spec("x" * 400))
    assert chunks[-1].usage.n_prompt == n_prompt


async def test_a_prompt_counts_where_the_client_leaves_or_the_answer_breaks():
    for behaviour, is_cancelled in (("endless", True), ("half", False), ("silent", False)):
        server = ScriptedServer(behaviour)
        async with serving(server) as upstreams, upstreams.lease(BIG, SENDER) as client:
            generation = client.generate(spec("x" * 400, timeout_s=0.05))
            if is_cancelled:
                while not server.bodies:
                    await asyncio.sleep(0.002)
                generation.cancel()
                last = (await generation.take())[0]
            else:
                with pytest.raises(EdgeAgentError):
                    while await generation.take():
                        pass
                (last,) = generation.last_counts()
            assert not generation.last_counts()
        assert last.usage.n_prompt == 100, behaviour


async def test_the_tokens_of_several_prompts_are_divided_among_them():
    server = ScriptedServer()
    parts = [{"index": n, "text": "x", "finish_reason": "stop"} for n in range(6)]
    usage = {"prompt_tokens": 11, "prompt_tokens_details": {"cached_tokens": 9}}
    server.pieces = [event(choices=parts), event(choices=[], usage=usage), b"data: [DONE]\n\n"]
    prompts = [Prompt(text="a"), Prompt(text="b"), Prompt(text="c")]
    async with serving(server) as upstreams:
        chunks = await answer(upstreams, GenerateSpec(prompts=prompts, sampling=BLANK, n=2))
    ends = {chunk.index: chunk.usage for chunk in chunks if chunk.finish is not None}
    assert [ends[n].n_prompt for n in range(6)] == [3, 3, 4, 4, 4, 4]
    assert sum(ends[n].n_cached for n in (0, 2, 4)) == 9


async def test_a_request_that_was_refused_or_not_sent_counts_nothing():
    server = ScriptedServer("429")
    async with serving(server) as upstreams, upstreams.lease(BIG, SENDER) as client:
        generation = client.generate(spec())
        with pytest.raises(UpstreamUnavailable):
            await generation.take()
        assert not generation.last_counts()
        generation = client.generate(spec())
        generation.cancel()
        assert (await generation.take())[0].usage.n_prompt == 0


HOSTILE = [
    ([piece({"tool_calls": [{"index": 0, "function": {"name": "rm"}}]})], "not offered"),
    ([piece({"tool_calls": [{"index": 500, "function": {"name": "ok"}}]})], "format"),
    ([piece({"content": "x"}, index=7)], "more often than 1"),
    ([piece({"content": 5})], "format"),
    ([b"data: " + b"[" * 50_000 + b"\n\n"], "format"),
    ([event(choices=[], usage={"prompt_tokens": -1})], "format"),
    ([event(error={"message": "out of memory"})], "failed within"),
    ([piece({"tool_calls": [{"index": 0, "function": {"name": "ok", "arguments": "[1]"}}]}),
      piece({}, "tool_calls")], "no JSON object"),
    ([b"data: [DONE]\n\n"], "without a finish_reason"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "why"), HOSTILE)
async def test_nonsense_in_a_stream_is_an_error(pieces, why):
    server = ScriptedServer()
    server.pieces = pieces
    tools = ToolUse(tools=[Tool(name="ok")])
    async with serving(server) as upstreams:
        with pytest.raises((UpstreamFailed, UpstreamUnavailable), match=why):
            await answer(upstreams, spec(tools=tools))


async def test_names_of_special_tokens_and_control_characters_stay_text():
    server = ScriptedServer()
    text = "<|im_end|>\x1b[31m\u0000\ud7ff"
    server.pieces = [piece({"content": text}), piece({}, "stop"), b"data: [DONE]\n\n"]
    async with serving(server) as upstreams:
        chunks = await answer(upstreams)
    assert text_of(chunks) == text and chunks[-1].usage.n_generated == 5  # its 17 characters


async def test_the_breaker_opens_after_failures_and_closes_after_a_health_check():
    server = ScriptedServer("500")
    async with serving(server, breaker_failures=2, breaker_open_s=0.2) as upstreams:
        for _ in range(2):
            with pytest.raises(UpstreamFailed):
                await answer(upstreams)
        (upstream,) = upstreams.all()
        assert upstream.is_open
        with pytest.raises(UpstreamUnavailable) as caught:
            await answer(upstreams)
        assert len(server.bodies) == 2 and 0 < caught.value.retry_after_s <= 0.2
        await asyncio.sleep(0.22)
        # It is still ill: a health check finds that out, and no request is sent.
        found = await asyncio.gather(*(answer(upstreams) for _ in range(4)), return_exceptions=True)
        assert all(isinstance(one, UpstreamUnavailable) for one in found)
        assert "health check" in found[0].message
        assert (len(server.bodies), server.n_checks) == (2, 1)
        server.behaviour = "answer"
        await asyncio.sleep(0.22)
        assert text_of(await answer(upstreams)) == TEXT
        assert not upstream.is_open and server.n_checks == 2


RM = piece({"tool_calls": [{"index": 0, "function": {"name": "rm"}}]})
# What one request meets twice, and whether the upstream and the model are avoided then.
BLAMED = [
    ("answer", False, False),
    ("403", False, False),
    ("404", False, True),
    ("401", True, True),
    ("500", True, True),
]


@pytest.mark.parametrize(("behaviour", "is_open", "is_avoided"), BLAMED)
async def test_what_one_request_brings_about_closes_nothing_for_the_others(
    behaviour, is_open, is_avoided
):
    server = ScriptedServer(behaviour)
    server.pieces = [RM]
    async with serving(server, breaker_failures=2) as upstreams:
        for _ in range(2):
            with pytest.raises(EdgeAgentError):
                await answer(upstreams)
        (upstream,) = upstreams.all()
        assert upstream.is_open is is_open
        assert (upstream.state(BIG).cooling_s > 0) is is_avoided
        assert (upstream.state("other").cooling_s > 0) is is_open


async def test_a_model_that_was_absent_is_asked_again():
    server = ScriptedServer("404")
    async with serving(server, breaker_failures=1, breaker_open_s=0.1) as upstreams:
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable):
                await answer(upstreams)
        assert len(server.bodies) == 1
        await asyncio.sleep(0.11)
        server.behaviour = "answer"
        assert text_of(await answer(upstreams)) == TEXT


async def test_a_retry_after_is_honoured_without_opening_the_breaker():
    busy = ScriptedServer("429")
    async with serving(busy) as upstreams:
        with pytest.raises(UpstreamUnavailable) as caught:
            await answer(upstreams)
        assert caught.value.retry_after_s == 7
        with pytest.raises(UpstreamUnavailable):
            await answer(upstreams)
        assert len(busy.bodies) == 1 and not upstreams.all()[0].is_open


async def test_proxies_and_key_logs_of_the_environment_are_not_used(tmp_path, monkeypatch):
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    tls, ca_file = certified(tmp_path / "tls")
    server = ScriptedServer(tls=tls)
    async with serving(server, ca_file=ca_file) as upstreams:
        assert text_of(await answer(upstreams)) == TEXT
    assert not log.exists()


async def test_tls_needs_the_pinned_authority_and_a_certificate_that_is_valid(tmp_path):
    good, ca = certified(tmp_path / "good")
    expired, old_ca = certified(tmp_path / "old", days=-1)
    for tls, ca_file, why in (
        (good, ca, None),
        (good, old_ca, "certificate"),
        (expired, old_ca, "expired"),
    ):
        server = ScriptedServer(tls=tls)
        async with serving(server, ca_file=ca_file) as upstreams:
            if why is None:
                assert text_of(await answer(upstreams)) == TEXT
                continue
            with pytest.raises(UpstreamUnavailable, match=why):
                await answer(upstreams)
        assert not server.bodies


async def test_a_cancelled_answer_ends_at_once_and_closes_its_connection():
    server = ScriptedServer("silent")
    async with serving(server, timeout_s=20) as upstreams:
        async with upstreams.lease(BIG, SENDER) as client:
            generation = client.generate(spec())
            generation.cancel()  # before its task has begun
            assert (await generation.take())[0].finish == "cancelled"
            generation = client.generate(spec())
            while not server.bodies:
                await asyncio.sleep(0.005)
            generation.cancel()
            assert (await generation.take())[0].finish == "cancelled"
        while upstreams.all()[0].n_running:
            await asyncio.sleep(0.005)


async def test_the_deadline_of_a_client_ends_what_has_not_begun():
    server = ScriptedServer("silent")
    async with serving(server) as upstreams:
        with pytest.raises(DeadlineExceeded, match="has not begun"):
            await answer(upstreams, spec(timeout_s=0.05))
        while upstreams.all()[0].n_running:
            await asyncio.sleep(0.005)


async def test_a_request_that_goes_in_a_circle_is_refused():
    server = ScriptedServer()
    async with serving(server) as upstreams:
        await answer(upstreams, sender=replace(SENDER, n_hops=1))
        assert server.heads[0]["x-edgeagent-hops"] == "2"
        with pytest.raises(Forbidden, match="circle"):
            await answer(upstreams, sender=replace(SENDER, n_hops=3))
    assert len(server.bodies) == 1


async def test_requests_beyond_the_limit_wait_for_room():
    server = ScriptedServer()
    server.delay_s = 0.005
    async with serving(server, max_concurrent=2, timeout_s=10) as upstreams:
        found = await asyncio.gather(*(answer(upstreams) for _ in range(8)))
    assert all(text_of(chunks) == TEXT for chunks in found)
    assert server.n_most == 2


async def test_an_upstream_that_dies_loses_no_request_that_had_not_begun():
    dying, other = ScriptedServer(), ScriptedServer()
    dying.delay_s = other.delay_s = 0.01

    async def ask(n: int) -> bool | None:
        """None: lost within its stream."""
        began = False
        async with upstreams.lease(BIG, SENDER) as client:
            generation = client.generate(spec(f"q{n}"))
            try:
                async for _ in generation:
                    began = True
            except EdgeAgentError:
                return None if began else False
        return True

    async with serving(dying, other, timeout_s=10, max_concurrent=100) as upstreams:
        tasks = [asyncio.create_task(ask(n)) for n in range(24)]
        while len(dying.bodies) < 10:
            await asyncio.sleep(0.002)
        await dying.stop()
        tasks += [asyncio.create_task(ask(40 + n)) for n in range(10)]
        ends = await asyncio.gather(*tasks)
    assert False not in ends
    assert all(n == 1 for n in (other.n_answered | dying.n_answered).values())


async def test_what_openai_s_format_cannot_say_is_refused_before_it_is_sent():
    server = ScriptedServer()
    request = GenerateSpec(prompts=[Prompt(tokens=[1, 2])], sampling=BLANK)
    async with serving(server) as upstreams:
        with pytest.raises(UnsupportedParameter, match="as text"):
            await answer(upstreams, request)
    assert server.n_connections == 0


async def test_a_request_that_the_upstream_refuses_is_the_clients_to_change():
    server = ScriptedServer("422")
    async with serving(server) as upstreams:
        with pytest.raises((InvalidParameter, ContextLengthExceeded), match="refuses the request"):
            await answer(upstreams)
        assert not upstreams.all()[0].is_open


async def test_a_prompt_that_is_too_long_for_a_llama_server_is_told_as_such():
    server = ScriptedServer("400")
    server.error = {
        "code": 400, "message": "request (5031 tokens) exceeds the available context size (2048 tokens), "
        "try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 5031, "n_ctx": 2048,
    }  # fmt: skip
    async with serving(server, breaker_failures=1) as upstreams:
        with pytest.raises(ContextLengthExceeded, match="5031 tokens"):
            await answer(upstreams)
        assert not upstreams.all()[0].is_open
