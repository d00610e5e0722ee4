"""What is thrown at the API, the short versions of `scripts/faults/fuzz_http.py` and `openapi.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.faults.fuzz_http import Fuzzer
from scripts.faults.playground import Playground, playground
from tests.api.wire import connect, read_reply, request
from tests.conftest import DaemonProcess, wait_for


@pytest.fixture(scope="module")
def place() -> Iterator[Playground]:
    with playground() as place:
        yield place


def test_no_spoiled_request_ends_the_daemon_or_gets_an_answer_that_nobody_planned(place):
    fuzzer = Fuzzer(place, seed=1)
    n_sent = fuzzer.run(300, None, 4)
    assert not fuzzer.is_bad, "\n".join(fuzzer.notes)
    assert n_sent == sum(fuzzer.statuses.values()) == 300
    reached = set(fuzzer.answered)
    assert len(reached) > 10, "good ones among them are answered, or nothing deep is reached"


def test_answers_are_as_the_openapi_document_says(place):
    from scripts.faults.openapi import Survey  # imports Schemathesis, which takes a second

    survey = Survey(place, first_seed=1, n_examples=2)
    survey.run(0)
    assert not survey.is_bad, "\n".join(survey.notes)
    assert sum(survey.statuses.values()) >= len(survey.operations)
    assert survey.statuses["200"] > 25


def test_a_client_that_leaves_within_its_body_is_no_error_of_ours(tales_daemon: DaemonProcess):
    before = tales_daemon.log.read_text().count("unforeseen")
    whole = request(
        "POST", "/v1/chat/completions", "Content-Type: application/json", body=b"x" * 99
    )
    with connect(tales_daemon.url) as sock:
        sock.sendall(whole[:-50])
    with connect(tales_daemon.url) as sock:  # what comes later is answered
        sock.sendall(request("GET", "/health"))
        assert read_reply(sock).status == 200
    wait_for(lambda: tales_daemon.log.read_text().count("unforeseen") == before)
