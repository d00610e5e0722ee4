"""A daemon that is stopped while it answers: every dialect's stream ends with an error that it can read."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.api.wire import connect, post
from tests.conftest import SHALLOW, serving, wait_for

SAID = [{"role": "user", "content": "Tell a story."}]
LONG = {"stream": True, "ignore_eos": True}
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": LONG | {"messages": SAID, "max_tokens": 2000},
    "/v1/completions": LONG | {"prompt": "Once", "max_tokens": 2000},
    "/v1/responses": LONG | {"input": "Once", "max_output_tokens": 2000},
    "/v1/messages": {"stream": True, "messages": SAID, "max_tokens": 2000},
    "/api/chat": {"messages": SAID, "options": {"num_predict": 2000}},
    "/api/generate": {"prompt": "Once", "options": {"num_predict": 2000}},
}
# Nothing that would end a text: "the end" is as likely as anything else.
HOT = {"temperature": 2.0}


def body_of(path: str) -> dict[str, Any]:
    body = STREAMS[path] | {"model": SHALLOW}
    if path.startswith("/api"):
        return body | {"options": body["options"] | HOT}
    return body if path == "/v1/messages" else body | HOT


def rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def last_event(path: str, data: bytes) -> Any:
    """What a stream says last, beside [DONE]."""
    lines = [line for line in data.decode().splitlines() if line.startswith(("data: ", "{"))]
    events = [line.removeprefix("data: ") for line in lines if "[DONE]" not in line]
    return json.loads(events[-1])


@pytest.fixture(scope="module")
def ended(
    shallow_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], str, int, int]:
    """What streams of all dialects received, the log, the exit status, how many children were left."""
    state = tmp_path_factory.mktemp("stopped")
    received = {}
    with (
        serving(shallow_dir, state, default_model=SHALLOW, shutdown_grace_s=0.1, n_seq=8) as daemon,
        ExitStack() as stack,
    ):
        socks = {}
        for path in STREAMS:
            socks[path] = stack.enter_context(connect(daemon.url))
            socks[path].sendall(post(path, body_of(path)))
        whole = stack.enter_context(connect(daemon.url))
        asked = body_of("/v1/completions") | {"stream": False}
        whole.sendall(post("/v1/completions", asked))
        heads = {path: sock.recv(65536) for path, sock in socks.items()}
        children = psutil.Process(daemon.pid).children(recursive=True)
        daemon.process.send_signal(signal.SIGTERM)
        for path, sock in socks.items():
            received[path] = heads[path] + rest(sock)
        received["whole"] = rest(whole)
        status = daemon.process.wait(30)
        _, left = psutil.wait_procs(children, timeout=60)
        return received, daemon.log.read_text(), status, len(left)


def test_streams_end_with_an_error_in_their_own_words(ended):
    received, *_ = ended
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert last_event(path, received[path])["error"]["code"] == "shutting_down"
        assert b"data: [DONE]" in received[path]
    failed = last_event("/v1/responses", received["/v1/responses"])
    assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
    message = last_event("/v1/messages", received["/v1/messages"])
    assert message["type"] == "error" and message["error"]["type"] == "overloaded_error"
    assert b"event: error" in received["/v1/messages"]
    for path in ("/api/chat", "/api/generate"):
        assert list(last_event(path, received[path])) == ["error"]


def test_a_whole_answer_that_is_not_finished_is_a_503(ended):
    received, *_ = ended
    assert received["whole"].startswith(b"HTTP/1.1 503")
    assert b"retry-after" in received["whole"] and b"shutting_down" in received["whole"]


def test_the_end_is_not_an_accident_in_the_log_and_leaves_nobody(ended):
    _, log, status, n_left = ended
    for word in ("Traceback", "CancelledError", "Exception in ASGI", " ERROR ", "timeout graceful"):
        assert word not in log
    assert status in (0, -signal.SIGTERM) and n_left == 0


def test_a_connection_accepted_just_before_the_stop_is_still_answered(
    stories_dir: Path, tmp_path: Path
):
    with (
        serving(stories_dir, tmp_path / "state", preload=False) as daemon,
        connect(daemon.url) as sock,
    ):
        httpx.get(f"{daemon.url}/health")  # so the connection before it has been accepted
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Shutting down" in daemon.log.read_text())
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert rest(sock).startswith(b"HTTP/1.1 200")
