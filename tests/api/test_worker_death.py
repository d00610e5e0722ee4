"""A worker that dies or hangs costs its own requests and nothing else.

`TEST_KILLS=50` repeats the kill that often.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.api.wire import error_of
from tests.conftest import SHALLOW, DaemonProcess, serving, wait_for

N_KILLS = int(os.environ.get("TEST_KILLS", "2"))
ASK = [{"role": "user", "content": "Tell a long story."}]


@pytest.fixture(scope="module")
def daemon(shallow_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with serving(shallow_dir, tmp_path_factory.mktemp("mortal"), hang_timeout_s=4.0) as daemon:
        yield daemon


def the_worker(daemon: DaemonProcess) -> psutil.Process:
    (worker,) = daemon.workers()
    return worker


def answer(daemon: DaemonProcess) -> str:
    with daemon.client(timeout=60) as client:
        reply = client.chat.completions.create(model=SHALLOW, messages=ASK, max_tokens=2)
    return reply.choices[0].finish_reason


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_ends_the_stream_with_an_error_and_the_next_request_is_answered(
    daemon: DaemonProcess, signal_number
):
    pid = daemon.pid
    for _ in range(N_KILLS if signal_number == signal.SIGKILL else 1):
        worker = the_worker(daemon)
        with daemon.client() as client:
            stream = client.chat.completions.create(
                model=SHALLOW,
                messages=ASK,
                max_tokens=3000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            chunks = iter(stream)
            assert next(chunks).choices
            worker.send_signal(signal_number)
            with pytest.raises(openai.APIError) as caught:
                list(chunks)
        assert error_of({"error": caught.value.body})["code"] == "engine_died"
        assert answer(daemon) in ("stop", "length")
        assert the_worker(daemon).pid != worker.pid
    assert daemon.process.poll() is None and daemon.pid == pid
    assert httpx.get(f"{daemon.url}/health").status_code == 200


def test_a_killed_worker_makes_a_503_of_a_request_that_is_not_streamed(daemon: DaemonProcess):
    from concurrent.futures import ThreadPoolExecutor

    worker = the_worker(daemon)
    spent = worker.cpu_times().user
    with daemon.client() as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            client.chat.completions.create, model=SHALLOW, messages=ASK, max_tokens=3000,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        # Long enough for the first tokens: a request without any is answered by the next worker.
        wait_for(lambda: worker.cpu_times().user > spent + 0.5)
        worker.kill()
        with pytest.raises(openai.InternalServerError) as caught:
            asked.result(timeout=60)
    assert caught.value.status_code == 503
    assert caught.value.code == "engine_died"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120
    assert "x-should-retry" not in caught.value.response.headers
    assert answer(daemon)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_request_that_has_got_nothing_yet_is_answered_by_the_next_worker(
    daemon: DaemonProcess, is_stream: bool
):
    assert answer(daemon)
    the_worker(daemon).kill()
    with daemon.client(max_retries=0) as client:
        reply = client.chat.completions.create(
            model=SHALLOW, messages=ASK, max_tokens=2, stream=is_stream
        )
        last = list(reply)[-1] if is_stream else reply
    assert last.choices[0].finish_reason in ("stop", "length")


def test_a_worker_that_hangs_is_ended_and_its_successor_answers(daemon: DaemonProcess):
    assert answer(daemon)
    worker = the_worker(daemon)
    worker.suspend()
    assert answer(daemon)
    assert not psutil.pid_exists(worker.pid)
    assert daemon.process.poll() is None


@pytest.mark.parametrize("n_letters", [1, 300_000])
def test_a_template_process_that_stops_is_replaced_and_the_worker_goes_on(
    daemon: DaemonProcess, n_letters: int
):
    assert answer(daemon)
    worker = the_worker(daemon)
    helpers = worker.children(recursive=True)
    (template,) = [c for c in helpers if "edgeagent.engine.template" in c.cmdline()]
    template.suspend()
    with daemon.client(timeout=60) as client:
        request = [{"role": "user", "content": "x" * n_letters}]
        if n_letters == 1:
            client.chat.completions.create(model=SHALLOW, messages=request, max_tokens=2)
        else:
            with pytest.raises(openai.BadRequestError, match="tokens"):
                client.chat.completions.create(model=SHALLOW, messages=request, max_tokens=2)
    assert not psutil.pid_exists(template.pid)
    assert answer(daemon)
    assert the_worker(daemon) == worker


def test_a_worker_killed_while_it_loads_costs_the_waiting_request_and_the_next_one_starts_another(
    daemon: DaemonProcess,
):
    # On a busy machine the worker may have answered before it is seen: then once more.
    loading, code = next(
        found for found in (killed_while_it_loads(daemon) for _ in range(20)) if found[1]
    )
    assert code == "engine_died"
    assert "the next request loads it again" in httpx.get(f"{daemon.url}/ready").json()["reason"]
    assert answer(daemon)
    assert the_worker(daemon).pid != loading.pid
    assert daemon.process.poll() is None


def killed_while_it_loads(daemon: DaemonProcess) -> tuple[psutil.Process, str | None]:
    """The worker that a request had started, and the code of that request's error if it got one."""
    from concurrent.futures import ThreadPoolExecutor

    assert answer(daemon)
    httpx.post(f"{daemon.url}/v1/models/{SHALLOW}/unload").raise_for_status()
    assert not daemon.workers()
    with daemon.client(max_retries=0) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            client.chat.completions.create, model=SHALLOW, messages=ASK, max_tokens=2
        )
        wait_for(lambda: bool(daemon.workers()))
        loading = the_worker(daemon)
        loading.kill()
        error = asked.exception(timeout=60)
    return loading, error.code if isinstance(error, openai.APIError) else None


def test_a_worker_that_only_dies_is_left_alone_for_a_while(shallow_dir: Path, tmp_path: Path):
    # The second one dies while it loads: however busy the machine, both deaths are within the window.
    with serving(shallow_dir, tmp_path / "state", breaker_deaths=2, breaker_window_s=5.0) as daemon:
        first = the_worker(daemon)
        first.kill()
        wait_for(lambda: any(worker.pid != first.pid for worker in daemon.workers()))
        the_worker(daemon).kill()
        # A request that comes before the daemon has counted this death ends as one that waited for the load.
        wait_for(lambda: "left alone" in str(httpx.get(f"{daemon.url}/ready").json().get("reason")))
        with daemon.client() as client, pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=SHALLOW, messages=ASK, max_tokens=2)
        assert caught.value.status_code == 503
        assert caught.value.code == "engine_broken"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 5
        ready = httpx.get(f"{daemon.url}/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "unavailable"
        assert "died" in ready.json()["reason"]
        assert httpx.get(f"{daemon.url}/health").status_code == 200
        with daemon.client(max_retries=5) as client:
            reply = client.chat.completions.create(model=SHALLOW, messages=ASK, max_tokens=2)
        assert reply.choices[0].finish_reason in ("stop", "length")
