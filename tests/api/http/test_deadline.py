"""Deadlines: what a request says, and what becomes of it in a real queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from edgeagent.api.http.deadline import deadline_of
from edgeagent.api.http.request_context import RequestContext
from edgeagent.errors import DeadlineExceeded, InvalidParameter
from edgeagent.serving.deadline import before, left_s
from tests.conftest import TALES_CHAT, DaemonProcess

OWN, READ = b"x-request-timeout", b"x-stainless-read-timeout"
ASK: dict[str, Any] = {
    "model": TALES_CHAT,
    "messages": [{"role": "user", "content": "Tell me a tale"}],
    "max_tokens": 4,
}


@pytest.mark.parametrize(
    "headers, field, is_stream, expected",
    [
        ([], None, False, None),
        ([(OWN, b"3")], None, False, 103),
        ([(OWN, b"3")], 2.5, False, 102.5),
        ([(READ, b"600")], 700, False, 700),
        ([(READ, b"600.0")], None, True, None),  # pings keep its client waiting
        ([(OWN, b"9"), (READ, b"5")], None, True, 109),
        ([(b"x-stainless-timeout", b"NOT_GIVEN")], None, False, None),
        ([(READ, b"nan")], None, False, None),
    ],
)
def test_the_earliest_deadline_counts(headers, field, is_stream, expected):
    context = RequestContext(arrived_s=100.0, timeout_s=field, is_stream=is_stream)
    assert deadline_of(context, headers) == expected


@pytest.mark.parametrize("value", [b"", b"soon", b"0", b"-1", b"nan", b"inf", b"1e9"])
def test_our_own_header_must_be_right(value):
    with pytest.raises(InvalidParameter, match="x-request-timeout"):
        deadline_of(RequestContext(), [(OWN, value)])


async def test_what_runs_is_cancelled_at_the_deadline_and_other_timeouts_stay_what_they_are():
    assert left_s(None) is None
    with pytest.raises(DeadlineExceeded):
        left_s(time.monotonic() - 1)
    with pytest.raises(DeadlineExceeded):
        async with before(time.monotonic() + 0.01):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        async with before(time.monotonic() + 60):
            raise TimeoutError


def test_a_request_whose_deadline_cannot_be_met_is_a_504(tales_daemon: DaemonProcess):
    """The engine is kept busy by more answers than it has slots."""
    url = f"{tales_daemon.url}/v1/chat/completions"
    busy = ASK | {"max_tokens": 3000, "n": 8, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", url, json=busy, timeout=120) as stream:
        next(stream.iter_raw())  # all slots are taken, until this client leaves
        reply = httpx.post(url, json=ASK | {"timeout": 0.001})
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    assert reply.headers["x-should-retry"] == "false"
    assert httpx.post(url, json=ASK | {"timeout": 60}).status_code == 200
    wrong = httpx.post(url, json=ASK, headers={"x-request-timeout": "soon"})
    assert wrong.status_code == 400
