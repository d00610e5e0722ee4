"""What follows from a fault of an upstream."""

from __future__ import annotations

import pytest

from edgeagent.errors import UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from edgeagent.routing.upstreams.faults import (
    Fault,
    blamed,
    error_code,
    error_of,
    kind_of_status,
    may_repeat,
    retry_after,
)

# By fault: whether another engine is asked with repeats = refused, broken, silent; what it counts against.
FAULTS = {
    "unreachable": (True, True, True, "upstream"),
    "busy": (True, True, True, "nothing"),
    "rejected": (True, True, True, "upstream"),
    "denied": (True, True, True, "nothing"),
    "absent": (True, True, True, "model"),
    "invalid": (False, False, False, "nothing"),
    "broken": (False, True, True, "upstream"),
    "failed": (False, False, True, "upstream"),
    "silent": (False, False, True, "upstream"),
    "nonsense": (False, False, True, "upstream"),
    "miscalled": (False, False, True, "nothing"),
    "unfinished": (False, False, False, "nothing"),
}


@pytest.mark.parametrize(("kind", "expected"), FAULTS.items())
def test_the_table_of_faults(kind, expected):
    repeats = ("refused", "broken", "silent")
    found = tuple(may_repeat(kind, policy, has_begun=False) for policy in repeats)
    assert (*found, blamed(kind)) == expected
    assert not any(may_repeat(kind, policy, has_begun=True) for policy in repeats)


STATUSES = [
    (200, None), (204, "nonsense"), (101, "nonsense"), (301, "rejected"), (308, "rejected"),
    (400, "invalid"), (401, "rejected"), (403, "denied"), (404, "absent"), (413, "invalid"), (422, "invalid"),
    (429, "busy"), (500, "failed"), (502, "failed"), (503, "busy"), (504, "failed"), (599, "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_every_status_is_a_fault_but_200(status, kind):
    assert kind_of_status(status) == kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0.1), ("-5", 0.1), ("1e9", 600), ("inf", 600), ("nan", 1), ("", 1), (None, 1),
     ("Wed, 21 Oct 2026 07:28:00 GMT", 1)],
)  # fmt: skip
def test_a_retry_after_is_within_bounds(value, seconds):
    assert retry_after(value) == seconds


CODES = [
    ({"code": "context_length_exceeded", "message": "x"}, "context_length_exceeded"),
    # llama-server
    ({"code": 400, "message": "request (5031 tokens) exceeds the available context size (2048 tokens), try "
      "increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 5031, "n_ctx": 2048},
     "context_length_exceeded"),
    # vLLM
    ({"code": 400, "message": "This model's maximum context length is 2048 tokens. You asked for 9",
      "type": "BadRequestError", "param": None}, "context_length_exceeded"),
    ({"code": 400, "message": "cannot resolve $ref", "type": "invalid_request_error"}, ""),
    ({"code": None, "message": ["maximum context length"]}, ""),
    ({}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code"), CODES)
def test_a_prompt_that_is_too_long_is_known_by_the_words_of_each_engine(error, code):
    assert error_code(error) == code


def test_the_error_says_whether_a_repeat_is_safe():
    silent = Fault("silent", "nothing came for 60 s")
    assert isinstance(error_of(silent, "big", is_repeatable=False), UpstreamTimeout)
    assert isinstance(error_of(silent, "big", is_repeatable=True), UpstreamUnavailable)
    unfinished = error_of(Fault("unfinished", "x"), "big", is_repeatable=False)
    assert isinstance(unfinished, UpstreamTimeout)
    nonsense = error_of(Fault("nonsense", "x"), "big", is_repeatable=False)
    assert type(nonsense) is UpstreamFailed and "not repeated" in nonsense.message
