"""Compressed bodies: what is undone, what is refused, and that no bomb goes off."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from edgeagent.api.http.encodings import decoded, encoding_of
from edgeagent.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

zstd = pytest.importorskip("backports.zstd")

TEXT = b'{"prompt": "' + b"a patient in ward 7 " * 500 + b'"}'
MANY = 1 << 22


def raw_deflate(data: bytes) -> bytes:
    worker = zlib.compressobj(wbits=-15)
    return worker.compress(data) + worker.flush()


FORMS = {
    "gzip": [gzip.compress(TEXT), gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])],
    "deflate": [zlib.compress(TEXT), raw_deflate(TEXT), zlib.compress(TEXT, 0)],
    "zstd": [
        zstd.compress(TEXT), zstd.compress(TEXT, 19), zstd.compress(TEXT[:9]) + zstd.compress(TEXT[9:]),
    ],
}  # fmt: skip
CASES = [(name, data) for name, bodies in FORMS.items() for data in bodies]
# Compressed bytes hold the time, and a test must have one name in every process that runs tests.
IDS = [f"{name}-{i}" for i, (name, _) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "data"), CASES, ids=IDS)
def test_a_body_comes_out_as_it_went_in(name, data):
    assert decoded(data, name, MANY) == TEXT
    assert decoded(data, name, len(TEXT)) == TEXT
    with pytest.raises(BodyTooLarge):
        decoded(data, name, len(TEXT) - 1)


@pytest.mark.parametrize(("name", "data"), CASES, ids=IDS)
def test_what_is_cut_short_or_goes_on_or_is_something_else_is_a_400(name, data):
    for bad in (data[:-1], data[:5], data + b"garbage", b"", TEXT):
        with pytest.raises(BadRequest):
            decoded(bad, name, MANY)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gzip", lambda: gzip.compress(bytes(200 << 20), 9)),
        ("deflate", lambda: zlib.compress(bytes(200 << 20), 9)),
        ("zstd", lambda: zstd.compress(bytes(200 << 20))),
        ("gzip", lambda: gzip.compress(b"") * 50_000),
        ("zstd", lambda: zstd.compress(b"") * 50_000),
    ],
    ids=["gzip", "deflate", "zstd", "many members", "many frames"],
)
def test_a_bomb_takes_no_more_memory_than_the_bound(name, make):
    bomb = make()
    tracemalloc.start()
    with pytest.raises(BadRequest):
        decoded(bomb, name, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (8 << 20) + 4 * len(bomb)


def test_a_window_larger_than_http_allows_is_refused():
    options = {zstd.CompressionParameter.window_log: 27}
    worker = zstd.ZstdCompressor(options=options)
    data = worker.compress(bytes(1000)) + worker.flush()
    with pytest.raises(BadRequest):
        decoded(data, "zstd", MANY)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], "identity"), (["identity"], "identity"), (["gzip"], "gzip"), (["X-GZIP"], "gzip"),
        (["deflate"], "deflate"), (["zstd"], "zstd"), ([" gzip , identity"], "gzip"), ([""], "identity"),
    ],
)  # fmt: skip
def test_encodings_by_their_names(values, found):
    assert encoding_of([(b"content-encoding", value.encode()) for value in values]) == found


@pytest.mark.parametrize(
    "values", [["br"], ["gzip, gzip"], ["gzip", "zstd"], ["compress"], ["a" * 999]]
)
def test_what_cannot_be_undone_is_refused_with_what_can(values):
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate, zstd") as caught:
        encoding_of([(b"content-encoding", value.encode()) for value in values])
    assert len(caught.value.message) < 300
