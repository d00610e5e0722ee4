"""Compressed request bodies: `Content-Encoding` gzip, deflate and zstd.

The output is limited while it is produced, so that a small body cannot become a large one; the window of
zstd is limited to the 8 MiB of RFC 9659.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Protocol

from edgeagent.api.http.body_memory import too_large
from edgeagent.errors import BadRequest, UnsupportedEncoding

IDENTITY = "identity"
SUPPORTED = ("gzip", "deflate", "zstd")
MAX_WINDOW_LOG = 23
MAX_MEMBERS = 16  # concatenated streams; each costs a copy of the rest
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def encoding_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The encoding of the body. Raises: UnsupportedEncoding for an unknown one."""
    values = [v.decode("latin-1") for name, v in headers if name == b"content-encoding"]
    names = [name.strip().lower() for value in values for name in value.split(",")]
    wanted = [name.removeprefix("x-") for name in names if name not in ("", IDENTITY)]
    if not wanted:
        return IDENTITY
    if len(wanted) > 1 or wanted[0] not in SUPPORTED:
        raise UnsupportedEncoding(
            f"Content-Encoding is {', '.join(names)[:80]!r}: send the body as it is, or in one of "
            f"{', '.join(SUPPORTED)}."
        )
    return wanted[0]


def decoded(data: bytes | bytearray, encoding: str, max_bytes: int) -> bytes | bytearray:
    """The decoded body. Raises: BodyTooLarge beyond `max_bytes`; BadRequest for damaged data."""
    if encoding == IDENTITY:
        return data
    try:
        if encoding == "zstd":
            return _zstd(bytes(data), max_bytes)
        return _zlib(bytes(data), _window(data, encoding), max_bytes)
    except (zlib.error, EOFError) as exc:
        raise BadRequest(f"The body is not valid {encoding}: compress it again.") from exc


def pieces(given: Iterable[bytes], encoding: str, max_bytes: int) -> Iterable[bytes]:
    """The decoded body piece by piece; of a compressed one there is one piece. Raises as `decoded`."""
    if encoding == IDENTITY:
        return given
    return (bytes(decoded(b"".join(given), encoding, max_bytes)),)


def _window(data: bytes | bytearray, encoding: str) -> int:
    if encoding == "gzip":
        return _GZIP
    # "deflate" is zlib's format; some clients send raw deflate data (RFC 9110, 8.4.1.2).
    is_zlib = len(data) > 1 and data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _ZLIB if is_zlib else _RAW


def _zlib(data: bytes, window: int, max_bytes: int) -> bytearray:
    out = bytearray()
    for _ in range(MAX_MEMBERS):
        worker = zlib.decompressobj(window)
        out += worker.decompress(data, max_bytes + 1 - len(out))
        if len(out) > max_bytes:
            raise too_large(len(out), max_bytes)
        data = _rest(worker, window == _GZIP)
        if not data:
            return out
    raise EOFError


def _zstd(data: bytes, max_bytes: int) -> bytearray:
    from backports import zstd  # a module of 200 kB that few clients need

    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    out = bytearray()
    try:
        for _ in range(MAX_MEMBERS):
            worker = zstd.ZstdDecompressor(options=options)
            out += worker.decompress(data, max_length=max_bytes + 1 - len(out))
            if len(out) > max_bytes:
                raise too_large(len(out), max_bytes)
            data = _rest(worker, may_go_on=True)
            if not data:
                return out
    except zstd.ZstdError as exc:
        raise EOFError from exc
    raise EOFError


def _rest(worker: _Decompressor, may_go_on: bool) -> bytes:
    """What stands after a stream: more of them, as gzip and zstd allow. Raises: EOFError."""
    if not worker.eof or (worker.unused_data and not may_go_on):
        raise EOFError
    return worker.unused_data
