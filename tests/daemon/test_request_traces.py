"""Spans of requests as a real collector gets them, and what keeps a daemon from sending any."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeagent.cli.shared.egress_table import policy
from edgeagent.daemon import request_traces
from edgeagent.daemon.request_traces import RequestTraces, attributes_of, operation_of, phases_of
from edgeagent.errors import StartFailed
from edgeagent.settings import Settings
from edgeagent.settings.traces import TracesSettings
from edgeagent.store.requests import RequestRow
from tests.commands import run_apart, run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

CANARY = "amoxicillin-canary"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
ROW = RequestRow(
    id="req_1", owner="ward-7", key_id="key_9", endpoint="/v1/chat/completions", model="m", route="named",
    status=200, finish="stop", n_prompt=10, n_cached=4, n_generated=5, queue_ms=20.0, ttft_ms=50.0,
    tpot_ms=10.0, total_ms=100.0, created_ms=1_000_000,
)  # fmt: skip


class Collector:
    """An OTLP/HTTP collector on loopback: keeps the bodies it gets, and answers with `status`."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[dict[str, str]] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.heads.append(
                    {name.lower(): value for name, value in self.headers.items()}
                )
                if collector.status == 200:
                    collector.bodies.append(body)
                self.send_response(collector.status)
                if 300 <= collector.status < 400:
                    self.send_header("Location", self.path + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def spans(self) -> list[Any]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def daemon(
    collector: Collector, tales_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    state = tmp_path_factory.mktemp("traces")
    secrets = state.parent / "headers"
    secrets.write_text("Authorization: Bearer 123\n\nx-scope-orgid: ward\n")
    settings = {
        "traces.endpoint": collector.url,
        "traces.headers_file": str(secrets),
        "traces.interval_s": 0.05,
    }
    with serving(tales_dir, state, **settings) as daemon:
        yield daemon


def chat(daemon: DaemonProcess, **headers: str) -> httpx.Response:
    body = {
        "model": TALES_CHAT,
        "messages": [{"role": "user", "content": f"Say {CANARY}"}],
        "max_tokens": 6,
    }
    return httpx.post(
        f"{daemon.url}/v1/chat/completions", json=body, headers=headers, timeout=60
    ).raise_for_status()


def value(span: Any, name: str) -> Any:
    found = {item.key: item.value for item in span.attributes}[name]
    return getattr(found, found.WhichOneof("value"))


def test_a_request_becomes_a_span_in_the_trace_of_its_client(
    collector: Collector, daemon: DaemonProcess
):
    before = len(collector.spans())
    answer = chat(daemon, traceparent=f"00-{TRACE}-{PARENT}-01").json()
    wait_for(lambda: len(collector.spans()) >= before + 2)
    spans = {span.name: span for span in collector.spans()[before:]}
    span = spans[f"chat {TALES_CHAT}"]
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert span.kind == span.SPAN_KIND_SERVER
    assert value(span, "gen_ai.usage.input_tokens") == answer["usage"]["prompt_tokens"]
    assert value(span, "gen_ai.usage.output_tokens") == answer["usage"]["completion_tokens"]
    assert [v.string_value for v in value(span, "gen_ai.response.finish_reasons").values]
    assert value(span, "edgeagent.route.reason") == "named"
    parts = [spans[name] for name in ("prefill", "decode")]
    assert all(part.parent_span_id == span.span_id for part in parts)
    assert all(
        span.start_time_unix_nano <= part.start_time_unix_nano
        and part.end_time_unix_nano <= span.end_time_unix_nano
        for part in parts
    )
    assert collector.heads[-1]["authorization"] == "Bearer 123"


def test_spans_hold_no_content_and_no_owner(collector: Collector, daemon: DaemonProcess):
    before = len(collector.bodies)
    chat(daemon)
    wait_for(lambda: len(collector.bodies) > before)
    sent = b"".join(collector.bodies)
    assert b"gen_ai.usage.output_tokens" in sent
    assert CANARY.encode() not in sent
    assert b"key_" not in sent and b"owner" not in sent


@pytest.mark.parametrize(
    "sent", ["00-zz-yy-01", "garbage", f"00-{'0' * 32}-{PARENT}-01", "0" * 5000]
)
def test_a_wrong_traceparent_begins_a_trace_of_its_own(
    sent: str, collector: Collector, daemon: DaemonProcess
):
    before = len(collector.spans())
    chat(daemon, traceparent=sent)
    wait_for(lambda: len(collector.spans()) >= before + 2)
    assert all(span.trace_id.hex() != "0" * 32 for span in collector.spans()[before:])
    assert f"chat {TALES_CHAT}" in {span.name for span in collector.spans()[before:]}


def test_a_client_may_leave_its_request_out(collector: Collector, daemon: DaemonProcess):
    before = len(collector.spans())
    chat(daemon, traceparent=f"00-{TRACE}-{PARENT}-00")
    chat(daemon)
    wait_for(lambda: len(collector.spans()) >= before + 2)
    names = [span.name for span in collector.spans()[before:]]
    assert names.count(f"chat {TALES_CHAT}") == 1


@pytest.mark.parametrize("status", [302, 400, 413])
def test_a_collector_that_refuses_costs_spans_and_two_lines(
    status: int, collector: Collector, daemon: DaemonProcess
):
    before = daemon.log.stat().st_size
    new = lambda: daemon.log.read_text()[before:]  # noqa: E731
    n_heads = len(collector.heads)
    collector.status = status
    try:
        chat(daemon)
        wait_for(lambda: len(collector.heads) > n_heads)
    finally:
        collector.status = 200
    wait_for(lambda: "traces_lost" in new())
    chat(daemon)
    wait_for(lambda: "traces_sent_again" in new())
    lines = [line for line in new().splitlines() if "traces" in line or "opentelemetry" in line]
    assert len(lines) == 2, lines


def test_the_end_of_a_daemon_does_not_wait_for_a_collector_that_is_gone(
    tales_dir: Path, tmp_path: Path
):
    gone = Collector()
    gone.close()
    settings = {
        "traces.endpoint": gone.url,
        "traces.interval_s": 0.05,
        "traces.timeout_s": 0.2,
    }
    with serving(tales_dir, tmp_path / "state", **settings) as daemon:
        chat(daemon)
        wait_for(lambda: "traces_lost" in daemon.log.read_text())
        chat(daemon)
    assert daemon.process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in daemon.log.read_text()


async def test_a_collector_that_accepts_and_does_not_answer_holds_the_end_up_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(request_traces, "CLOSE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        traces = RequestTraces(TracesSettings(endpoint=endpoint, timeout_s=0.5, interval_s=60))
        for _ in range(300):
            traces.add(ROW)
        await traces.close()
        (ending,) = [thread for thread in threading.enumerate() if thread.name == "traces-end"]
        assert ending.is_alive() and ending.daemon, "it did not wait for two batches"
        await asyncio.to_thread(ending.join)


def test_what_is_waiting_is_sent_at_the_end(collector: Collector):
    before = len(collector.spans())

    async def go() -> None:
        traces = RequestTraces(TracesSettings(endpoint=collector.url))
        traces.add(ROW)
        await traces.close()
        await traces.close()

    asyncio.run(go())
    names = [span.name for span in collector.spans()[before:]]
    assert sorted(names) == ["chat m", "decode", "load", "prefill", "queue"]


@pytest.mark.parametrize(
    "changes, expected",
    [
        # 100 ms in all, 50 to the first token and 4 gaps of 10: the model was loaded for 10 ms before.
        ({}, [("load", 0, 10), ("queue", 10, 30), ("prefill", 30, 60), ("decode", 60, 100)]),
        ({"total_ms": 90.0}, [("queue", 0, 20), ("prefill", 20, 50), ("decode", 50, 90)]),
        ({"ttft_ms": None}, []),
        ({"n_generated": 1, "tpot_ms": None, "total_ms": 50.0}, [("queue", 0, 20), ("prefill", 20, 50)]),
        ({"queue_ms": 0.0, "total_ms": 90.0}, [("prefill", 0, 50), ("decode", 50, 90)]),
        # Clocks that disagree never make a part longer than the whole.
        ({"total_ms": 40.0}, [("queue", 0, 20), ("prefill", 20, 40)]),
    ],
)  # fmt: skip
def test_the_parts_of_a_request(changes: dict[str, Any], expected: list[Any]):
    assert phases_of(msgspec.structs.replace(ROW, **changes)) == expected


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "chat"),
        ({"endpoint": "/v1/messages"}, "chat"),
        ({"endpoint": "/v1/embeddings"}, "embeddings"),
        ({"endpoint": "/api/generate"}, "text_completion"),
        ({"endpoint": "/v1/audio/transcriptions", "audio_s": 3.0}, "transcription"),
    ],
)
def test_the_operation_of_a_request(changes: dict[str, Any], expected: str):
    assert operation_of(msgspec.structs.replace(ROW, **changes)) == expected


def test_an_error_is_named_by_its_status():
    found = attributes_of(msgspec.structs.replace(ROW, status=503, finish=None, ttft_ms=None))
    assert found["error.type"] == "503"
    assert "gen_ai.response.finish_reasons" not in found
    assert "edgeagent.time_to_first_token_ms" not in found


@pytest.mark.parametrize(
    "text, said",
    [
        ('traces.endpoint = "collector:4318"', "must be a url like http://127.0.0.1:4318"),
        ('traces.endpoint = "ftp://a/b"', "must be a url like"),
        ('traces.endpoint = "http://user:secret@a/"', "without a user name"),
        ('traces.endpoint = "http://[::1"', "must be a url like"),
        ("traces.sample_ratio = 2", "traces.sample_ratio"),
        ('traces.endpoints = "http://a/"', "traces.endpoint"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(text: str, said: str, tmp_path: Path):
    config = tmp_path / "edgeagent.toml"
    config.write_text(text)
    done = run_here("serve", "--state-dir", tmp_path / "s", "--config", config)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_ends_the_start_in_one_line(tmp_path: Path):
    config = tmp_path / "edgeagent.toml"
    config.write_text('traces.endpoint = "http://127.0.0.1:1"\ntraces.headers_file = "/none"')
    done = run_apart("serve", "--port", 0, "--state-dir", tmp_path / "s", "--config", config)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith(
        "traces.headers_file: cannot read /none: No such file or directory."
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"endpoint": "http://127.0.0.1:1/", "headers_file": "headers"}, "line 1: write `name: value`"),
        ({"endpoint": "https://127.0.0.1:1/", "ca_file": "none"}, "traces.ca_file: cannot read"),
        ({"endpoint": "http://127.0.0.1:1/", "headers_file": "large"}, "more than 1048576 characters"),
        ({"endpoint": "http://10.0.0.9/"}, "offline = true refuses that"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(settings: dict[str, str], said: str, tmp_path: Path):
    (tmp_path / "headers").write_text("Authorization Bearer 123\n")
    (tmp_path / "large").write_text("x: 1\n" * 300_000)
    files = {name: tmp_path / path for name, path in settings.items() if name != "endpoint"}
    with pytest.raises(StartFailed, match=said):
        RequestTraces(TracesSettings.model_validate(settings | files), is_offline=True)


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StartFailed, match=r"pip install 'edgeagent\[traces\]'"):
        RequestTraces(TracesSettings(endpoint="http://127.0.0.1:1/"))


@pytest.mark.parametrize(
    "endpoint, said", [(None, "Nobody gets"), ("http://a/", "go to http://a/")]
)
def test_the_doctor_says_who_gets_traces(endpoint: str | None, said: str):
    from edgeagent.cli.shared.egress import ProcessSockets

    daemon = ProcessSockets(1, "daemon", (), ("lo",), is_confined=False)
    lines = policy(Settings(traces=TracesSettings(endpoint=endpoint)), [daemon])
    assert any(said in line for line in lines)
