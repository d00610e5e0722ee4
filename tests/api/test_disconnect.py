"""A client that leaves gives its slot back. The daemon has one slot, so the next answer proves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.api.wire import connect, post
from tests.conftest import SHALLOW, DaemonProcess, serving, wait_for

ENDLESS = {"model": SHALLOW, "max_tokens": 3500, "ignore_eos": True}
LONG = "The river was wide and the night was cold. " * 330  # about 3,600 tokens


@pytest.fixture(scope="module")
def daemon(shallow_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with serving(
        shallow_dir, tmp_path_factory.mktemp("one-slot"), n_seq=1, n_prefixes=0, ping_interval_s=0.1
    ) as daemon:
        yield daemon


def cancelled(daemon: DaemonProcess) -> int:
    return daemon.log.read_text().count("finish=cancelled")


def worker_seconds(daemon: DaemonProcess) -> float:
    (worker,) = daemon.workers()
    times: psutil._common.pcputimes = worker.cpu_times()
    return float(times.user)


def assert_slot_is_free(daemon: DaemonProcess, n_before: int) -> None:
    """Well before the abandoned request could have ended."""
    wait_for(lambda: cancelled(daemon) == n_before + 1)
    with daemon.client() as client:
        answer = client.completions.create(model=SHALLOW, prompt="Hi", max_tokens=2)
    assert answer.usage.completion_tokens <= 2
    assert cancelled(daemon) == n_before + 1


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_while_tokens_are_made_frees_the_slot(daemon: DaemonProcess, stream):
    before, spent = cancelled(daemon), worker_seconds(daemon)
    with connect(daemon.url) as sock:
        sock.sendall(post("/v1/completions", ENDLESS | {"prompt": "Once", "stream": stream}))
        if stream:
            assert b"200" in sock.recv(100)
        else:
            wait_for(lambda: worker_seconds(daemon) > spent + 0.3)
    assert_slot_is_free(daemon, before)


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_during_the_prompt_frees_the_slot(daemon: DaemonProcess, stream):
    before, spent = cancelled(daemon), worker_seconds(daemon)
    body = ENDLESS | {"prompt": f"{stream} {LONG}", "stream": stream, "max_tokens": 100}
    with connect(daemon.url) as sock:
        sock.sendall(post("/v1/completions", body))
        if stream:
            seen = b""
            while b": ping" not in seen:
                seen += sock.recv(100)
            assert b"data:" not in seen, "the prompt is still being read"
        else:
            wait_for(lambda: worker_seconds(daemon) > spent + 0.3)
    assert_slot_is_free(daemon, before)


def test_leaving_the_queue_leaves_no_trace(daemon: DaemonProcess):
    before = cancelled(daemon)
    with connect(daemon.url) as first:
        first.sendall(post("/v1/completions", ENDLESS | {"prompt": "Once", "stream": True}))
        assert b"200" in first.recv(100)
        with connect(daemon.url) as second:
            second.sendall(post("/v1/completions", ENDLESS | {"prompt": "Twice", "stream": True}))
            seen = b""
            while b": ping" not in seen:
                seen += second.recv(100)
        wait_for(lambda: cancelled(daemon) == before + 1)
    assert_slot_is_free(daemon, before + 1)


def test_closing_the_sdks_stream_frees_the_slot(daemon: DaemonProcess):
    before = cancelled(daemon)
    with daemon.client() as client:
        with client.chat.completions.create(
            model=SHALLOW, messages=[{"role": "user", "content": "Tell a long story."}],
            max_tokens=3500, extra_body={"ignore_eos": True}, stream=True,
        ) as stream:  # fmt: skip
            next(iter(stream))
        assert_slot_is_free(daemon, before)


def test_a_long_prompt_sends_comments_that_the_sdk_does_not_see(daemon: DaemonProcess):
    with daemon.client(_strict_response_validation=False, timeout=60) as client:
        chunks = list(
            client.completions.create(
                model=SHALLOW, prompt="Wait. " + LONG[: len(LONG) // 3], max_tokens=2, stream=True
            )
        )
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert json.loads(chunks[0].model_dump_json())["object"] == "text_completion"
