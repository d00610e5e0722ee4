"""The lines of a batch: what is taken, what is refused and how, and how answers are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.serving import batch_lines
from edgeagent.serving.batches import hours_of

ENDPOINT = "/v1/completions"


def line(custom_id: Any = "a", **fields: Any) -> str:
    row = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {"prompt": "x"}}
    return json.dumps(row | fields)


def test_a_file_is_split_into_lines():
    assert batch_lines.split("\ufeffä\r\n\n  \nb".encode(), 9) == ["ä", "b"]
    assert batch_lines.joined(["ä", "b"]) == "ä\nb\n".encode()


@pytest.mark.parametrize(
    "data, told", [(b"", "no lines"), (b"\xff", "UTF-8"), (b"1\n2\n3", "at most 2")]
)
def test_files_that_are_none_are_refused(data: bytes, told: str):
    with pytest.raises(InvalidParameter, match=told):
        batch_lines.split(data, 2)


@pytest.mark.parametrize(
    "bad, code",
    [
        ("{", "invalid_json_line"),
        ("[1]", "invalid_json_line"),
        ("[" * 5000, "invalid_json_line"),
        (line(None), "missing_required_parameter"),
        (line(""), "missing_required_parameter"),
        (line("x" * 300), "missing_required_parameter"),
        (line("first"), "duplicate_custom_id"),
        (line(method="GET"), "invalid_method"),
        (line(url="/v1/embeddings"), "mismatched_url"),
        (line(body="text"), "missing_required_parameter"),
        (line(body={"stream": True}), "invalid_request"),
        (line(body={"background": True}), "invalid_request"),
    ],
)
def test_a_line_that_cannot_be_done_is_named(bad: str, code: str):
    (error,) = batch_lines.check([line("first"), bad, line("last")], ENDPOINT)
    assert (error.code, error.line) == (code, 2)


def test_sound_lines_have_no_errors_and_many_errors_are_cut():
    assert batch_lines.check([line(str(i)) for i in range(100)], ENDPOINT) == []
    assert len(batch_lines.check(["{"] * 1000, ENDPOINT)) == batch_lines.MAX_ERRORS


def test_requests_and_answers_keep_their_text():
    request = batch_lines.parsed(line("ä", body={"prompt": "ü"}))
    assert request.custom_id == "ä" and json.loads(request.body) == {"prompt": "ü"}
    row = json.loads(batch_lines.answered("ä", 200, "req_1", {"text": "ß"}))
    assert row["id"].startswith("batch_req_") and row["error"] is None
    assert row["response"] == {"status_code": 200, "request_id": "req_1", "body": {"text": "ß"}}
    row = json.loads(batch_lines.unanswered("ä", "batch_expired", "late"))
    assert row["response"] is None and row["error"]["code"] == "batch_expired"


def test_windows_are_hours():
    assert hours_of("24h") == 24
    for wrong in ("", "h", "0h", "169h", "24", "1d", "-1h", "1.5h"):
        with pytest.raises(InvalidParameter, match="completion_window"):
            hours_of(wrong)
