"""The lines of a batch: what is taken, what is refused and how, and how answers are written."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.serving import batch_lines, json_structure
from edgeagent.serving.batches import hours_of

ENDPOINT = "/v1/completions"
M = 1 << 20


def line(custom_id: Any = "a", **fields: Any) -> str:
    row = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {"prompt": "x"}}
    return json.dumps(row | fields)


def json_of(depth: int) -> Any:
    """A list in a list, so deep."""
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def test_a_file_is_split_into_lines():
    assert batch_lines.split("\ufeffä\r\n\n  \nb".encode(), 9, M) == ["ä", "b"]
    assert batch_lines.joined(["ä", "b"]) == "ä\nb\n".encode()


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "no lines"),
        (b"\xff", "UTF-8"),
        (b"1\n2\n3", "3 lines, at most 2"),
        (b"1" * (M + batch_lines.ENVELOPE_BYTES + 1), "a line of"),
    ],
)
def test_files_that_are_none_are_refused(data: bytes, told: str):
    with pytest.raises(InvalidParameter, match=told):
        batch_lines.split(data, 2, M)


@pytest.mark.parametrize("data", [b"\n" * (4 << 20), b"1\n" * (2 << 20)])
def test_lines_are_counted_before_objects_are_made_of_them(data: bytes):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameter, match="at most 1000 requests"):
            batch_lines.split(data, 1000, M)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "bad, told",
    [
        (line(body={"a": json_of(300)}), "nested deeper"),
        (line(extra={"a": json_of(300)}), "nested deeper"),
        (line(body={str(i): 1 for i in range(json_structure.MAX_KEYS + 1)}), "keys"),
        (line(body={"a": [[]] * (json_structure.MAX_CONTAINERS + 1)}), "arrays and objects"),
    ],
)
def test_structure_of_lines_is_bounded_like_that_of_bodies(bad: str, told: str):
    (error,) = batch_lines.check([bad], ENDPOINT)
    assert error.code == "invalid_request" and told in error.message


def test_objects_are_not_made_of_a_line_with_too_much_structure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(msgspec.json, "decode", lambda *_: pytest.fail("decoded"))
    bad = line(body={"a": [[]] * (json_structure.MAX_CONTAINERS + 1)})
    (error,) = batch_lines.check([bad], ENDPOINT)
    assert error.code == "invalid_request"


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
    body = '{"text": "ß"}'.encode()
    row = json.loads(batch_lines.answered("ä", 200, "req_1", body))
    assert row["id"].startswith("batch_req_") and row["error"] is None
    assert row["response"] == {"status_code": 200, "request_id": "req_1", "body": {"text": "ß"}}
    laid_out = batch_lines.answered("ä", 200, "req_1", b'{\r\n  "a": "b\\nc"\n}')
    assert "\n" not in laid_out and "\r" not in laid_out, "one line each"
    assert json.loads(laid_out)["response"]["body"] == {"a": "b\nc"}
    assert json.loads(batch_lines.answered("ä", 200, "req_1", b""))["response"]["body"] is None
    row = json.loads(batch_lines.unanswered("ä", "batch_expired", "late"))
    assert row["response"] is None and row["error"]["code"] == "batch_expired"


def test_no_objects_are_made_of_answers(monkeypatch: pytest.MonkeyPatch):
    body = b'{"a": [' + b"[], " * 200_000 + b"[]]}"
    tracemalloc.start()
    try:
        assert len(batch_lines.answered("a", 200, "req_1", body)) > len(body)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(body)
    finally:
        tracemalloc.stop()


def test_windows_are_hours():
    assert hours_of("24h") == 24
    for wrong in ("", "h", "0h", "169h", "24", "1d", "-1h", "1.5h"):
        with pytest.raises(InvalidParameter, match="completion_window"):
            hours_of(wrong)
