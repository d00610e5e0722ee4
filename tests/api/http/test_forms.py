"""Forms with files: read in memory, named as clients name fields, and refused where they are not sound."""

from __future__ import annotations

import gzip
import itertools
import threading
import tracemalloc
from typing import Any

import httpx
import pytest
from litestar import Request

from edgeagent.api.http import forms
from edgeagent.api.http.body import MUCH_BYTES
from edgeagent.api.http.body_memory import Bodies
from edgeagent.api.http.forms import Form, parsed
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.uploads import Uploads, check_form
from edgeagent.errors import BadRequest, Forbidden, InvalidParameter, UnsupportedMediaType
from edgeagent.settings.http import HttpSettings

LISTS = frozenset({"words"})


def form(fields: list[tuple[str, str]], files: dict[str, bytes] | None = None) -> Form:
    """As httpx, and so the official client, writes it."""
    parts: list[tuple[str, tuple[str | None, bytes]]] = [
        (name, (None, value.encode())) for name, value in fields
    ]
    parts += [(name, ("a.wav", data)) for name, data in (files or {}).items()]
    request = httpx.Request("POST", "http://h/", files=parts)
    return parsed([request.read()], request.headers["content-type"], LISTS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("words[]", "x"), ("words[]", "y")], {"words": ["x", "y"]}),
        ([("words", "x"), ("words", "y")], {"words": ["x", "y"]}),
        ([("words", '["x", "y"]')], {"words": ["x", "y"]}),
        ([("o[type]", "t"), ("o[n]", "2")], {"o": {"type": "t", "n": "2"}}),
        ([("o", '{"type": "t"}')], {"o": {"type": "t"}}),
        ([("prompt", "{unfinished")], {"prompt": "{unfinished"}),
    ],
)
def test_fields(fields, expected):
    assert form(fields).fields == expected


def test_files_are_apart_from_fields():
    data = bytes(range(256)) * 1000
    found = form([("model", "m")], {"file": data})
    assert found.file("file") == data
    with pytest.raises(InvalidParameter, match="no file 'other'"):
        found.file("other")


@pytest.mark.parametrize(
    "fields",
    [
        [("a", "1"), ("a", "2")],
        [("a", "1"), ("a[b]", "2")],
        [("a[b]", "1"), ("a[b]", "2")],
        [("a[]", "1"), ("a[b]", "2")],
        [("a[b][c]", "1")],
        [("", "1")],
        [("a", "x" * 300_000)],
    ],
)
def test_fields_that_contradict_themselves_are_refused(fields):
    with pytest.raises(BadRequest):
        form(fields)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"no form", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut',
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_what_is_no_form_is_a_bad_request(body, kind):
    with pytest.raises(BadRequest):
        parsed([body], kind, LISTS)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_a_form_may_be_cut_anywhere(n):
    files = {"file": bytes(range(256)) * 8 + b"\r\n--", "other": b""}
    request = httpx.Request(
        "POST", "http://h/", data={"model": "m"}, files={k: (k, v) for k, v in files.items()}
    )
    body = request.read()
    cut = (body[i : i + n] for i in range(0, len(body), n))
    found = parsed(cut, request.headers["content-type"], LISTS)
    assert (found.fields, found.files) == ({"model": "m"}, files)


def test_a_large_file_is_held_once_while_its_form_is_parsed():
    n_pieces, piece = 64, b"x" * (256 << 10)
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    pieces = itertools.chain([head], itertools.repeat(piece, n_pieces), [b"\r\n--b--\r\n"])
    tracemalloc.start()
    try:
        found = parsed(pieces, "multipart/form-data; boundary=b", LISTS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = n_pieces * len(piece)
    assert len(found.file("f")) == size
    assert most < 1.5 * size


@pytest.mark.parametrize(
    "n_bytes, encoding, is_beside",
    [(100, "identity", False), (MUCH_BYTES, "identity", True), (100, "gzip", True)],
)
async def test_large_and_packed_forms_are_parsed_on_a_thread(
    monkeypatch: pytest.MonkeyPatch, n_bytes: int, encoding: str, is_beside: bool
):
    threads: list[threading.Thread] = []

    def spied(*given: Any) -> Form:
        threads.append(threading.current_thread())
        return parsed(*given)

    monkeypatch.setattr(forms, "parsed", spied)
    data = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    data += b"x" * n_bytes + b"\r\n--b--\r\n"
    sent = gzip.compress(data) if encoding == "gzip" else data

    async def receive() -> Any:
        return {"type": "http.request", "body": sent, "more_body": False}

    scope: Any = {"type": "http", "headers": [FORM], "method": "POST", "path": "/"}
    context_of(scope).body = await Bodies(HttpSettings()).read(receive, "key_1", encoding)
    found = await forms.read_form(Request(scope), LISTS)
    assert found.file("f") == b"x" * n_bytes
    assert [one is not threading.main_thread() for one in threads] == [is_beside]


def test_paths_with_uploads_have_a_bound_of_their_own():
    uploads = Uploads({"/v1/audio": 5})
    assert uploads.max_bytes("/v1/audio/transcriptions") == 5
    assert uploads.max_bytes("//v1/audio") == 5
    assert uploads.max_bytes("/v1/audiophile") is None
    assert uploads.max_bytes("/v1/chat/completions") is None


FORM = (b"content-type", b"multipart/form-data; boundary=b")


@pytest.mark.parametrize(
    ("headers", "origin", "error"),
    [
        ([FORM], None, None),
        ([FORM, (b"user-agent", b"Mozilla/5.0")], b"http://ok", None),
        ([FORM, (b"user-agent", b"Mozilla/5.0")], None, Forbidden),
        ([FORM, (b"referer", b"http://x")], None, Forbidden),
        ([(b"content-type", b"application/json")], None, UnsupportedMediaType),
        ([], None, UnsupportedMediaType),
    ],
)
def test_forms_come_from_programs_and_allowed_pages(headers, origin, error):
    if error is None:
        check_form(headers, origin)
    else:
        with pytest.raises(error):
            check_form(headers, origin)
