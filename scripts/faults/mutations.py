"""Ways to spoil a good request: in its values, in its bytes, in its head. Pure, by a generator of chance."""

# ruff: noqa: E501
from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

DEEP = 3000
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**63, -(2**63) - 1, 10**400, 0.1, -0.0, 1e308, 5e-324,
    "", " ", "\x00", "a\x00b", "\ud800", "\u202e", "😀" * 50, "a" * 300, "a" * 70_000, "../../etc/passwd",
    "{{ 7*7 }}", "{% for i in range(10**9) %}x{% endfor %}", "' OR 1=1 --", "%s%n", "<|im_end|>", "</think>",
    "null", "NaN", [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, ["a"] * 2000, [0] * 5000,
    {"type": "object"}, {"$ref": "#"}, {"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "string", "pattern": "(a+)+$"},
    {"type": "array", "minItems": 10**9}, {"enum": []}, {"anyOf": [{}] * 50},
]  # fmt: skip
RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000, b'"\\ud800"', b'"\xff"', b"'a'", b"01", b".5", b"undefined",
       b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO", "get", "P OST"]  # fmt: skip
IN_PATH = ["%00", "%2e%2e/", "..", "//", "/", "%ff", "?", "#", ";", "%", "%zz", "a" * 3000, "é", "\\", "*", "%2F", " "]  # fmt: skip
QUERY = ["limit=-1", "limit=1e9", "limit=", "limit=a&limit=2", "order=up", "after=%00", "=", "&&&", "a[b]=c", "%ff=%ff",
         "limit=99999999999999999999", "q=" + "x" * 5000, "q=%22", "q=*", "q=NEAR(", "since=-1", "since=1e400"]  # fmt: skip
HEADERS = [
    "Content-Type: text/plain", "Content-Type: application/json; charset=utf-16", "Content-Type: multipart/form-data",
    "Content-Type:", "Content-Encoding: gzip", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked",
    "Content-Length: -1", "Content-Length: 0", "Content-Length: x", "Content-Length: 99999999999999999999",
    "Content-Length: 10, 10", "Host: evil.example", "Host:", "Origin: null", "Origin: https://evil.example",
    "Expect: 100-continue", "Expect: 1000", "Connection: close", "Connection: upgrade", "Upgrade: h2c",
    "Accept: text/html", "Accept: */*;q=x", "Range: bytes=0-1", "Authorization: Basic xxx", "Authorization: Bearer",
    "Authorization: Bearer ea_wrong", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4", "X-Request-Id: a\tb", "Te: trailers",
    "anthropic-version: 1999-01-01", "X-Api-Key: x", "A: " + "b" * 9000, "A: " + "b" * 70_000, "Bad Header: x", "NoColon",
    " folded: x", "É: x", "A: \x00", "A: \x0b",
]  # fmt: skip
GARBAGE = [b"", b"\r\n\r\n", b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
           b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
           b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
           b"\r\n\r\nffffffffffffffffff\r\n", b"\xff\xfe\xfd" * 30]  # fmt: skip


@dataclass
class Draft:
    """A request in the making. `body` is JSON, or bytes once they are spoiled; None is no body.
    `is_cut`: it ends before it says it does, so nothing may be waited for."""

    method: str
    path: str
    headers: list[str]
    body: Any = None
    length: int | None = None
    is_cut: bool = False
    marks: list[str] = field(default_factory=list)

    def encode(self) -> bytes:
        """What is sent."""
        raw = self.body if isinstance(self.body, bytes) else encoded(self.body)
        head = [f"{self.method} {self.path} HTTP/1.1", *self.headers]
        if self.length is not None or (raw and not _has_length(self.headers)):
            head.append(f"Content-Length: {len(raw) if self.length is None else self.length}")
        return ("\r\n".join(head) + "\r\n\r\n").encode("utf-8", "surrogateescape") + raw


def encoded(body: Any) -> bytes:
    """JSON with what is raw in it left as it is."""
    if body is None:
        return b""
    return json.dumps(body).encode()


def _has_length(headers: list[str]) -> bool:
    return any(h.lower().startswith(("content-length", "transfer-encoding")) for h in headers)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value can be changed: the keys and numbers that lead there."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:20]):
            found += places(inner, (*path, i))
    return found


def changed(body: Any, rng: random.Random) -> Any:
    """The same body with one thing in it changed."""
    where = places(body)
    if not where or not isinstance(body, dict | list):
        return rng.choice(NASTY)
    copy = json.loads(json.dumps(body))
    *way, last = rng.choice(where)
    parent = copy
    for step in way:
        parent = parent[step]
    match rng.randrange(9):
        case 0 if isinstance(parent, dict):
            del parent[last]
        case 1 if isinstance(parent, dict):
            parent[rng.choice([last + "x", last.upper(), "", "é", last[:-1]])] = parent.pop(last)
        case 2 if isinstance(parent, dict):
            parent[rng.choice(["unknown", "__proto__", "a.b", "stream", "model", "tools"])] = rng.choice(NASTY)  # fmt: skip
        case 3 if isinstance(parent, list):
            parent += [parent[last]] * rng.choice([1, 3, 100])
        case 4:
            parent[last] = [parent[last]]
        case 5:
            parent[last] = {"a": parent[last]}
        case 6:
            *other, end = rng.choice(where)
            source = body
            for step in other:
                source = source[step]
            parent[last] = source[end]
        case 7 if isinstance(parent[last], int | float) and abs(parent[last]) < 1e300:
            parent[last] = parent[last] * rng.choice([-1, 0, 2, 1000, 1e30, 0.5])
        case _:
            parent[last] = rng.choice(NASTY)
    return copy


def spoiled(raw: bytes, rng: random.Random) -> bytes:
    """The same bytes with something in them changed."""
    data = bytearray(raw)
    at = rng.randrange(len(data) + 1)
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randint(1, 5)):
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            del data[at : at + rng.randint(1, 20)]
        case 2:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
        case 3:
            data[at:at] = data[at : at + rng.randint(1, 200)]
        case 4:
            data[at:at] = rng.choice(RAW)
        case 5:
            data[:0] = rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b" " * 1000, b"/* */"])
        case _:
            values = [i for i, byte in enumerate(data) if byte == ord(":")]
            if values:
                data[rng.choice(values) + 1 : at] = rng.choice(RAW)
    return bytes(data)


def worse_head(draft: Draft, rng: random.Random) -> None:
    """Change what stands before the body."""
    match rng.randrange(7):
        case 0:
            draft.method = rng.choice(METHODS)
        case 1:
            path, _, query = draft.path.partition("?")
            parts = path.split("/")
            parts[rng.randrange(len(parts))] = rng.choice(IN_PATH)
            draft.path = "/".join(parts) + ("?" + query if query else "")
        case 2:
            draft.path += ("&" if "?" in draft.path else "?") + rng.choice(QUERY)
        case 3:
            draft.headers.insert(rng.randrange(len(draft.headers) + 1), rng.choice(HEADERS))
            draft.is_cut = True
        case 4:
            draft.headers.pop(rng.randrange(len(draft.headers)))
        case 5:
            draft.length = rng.choice([0, 1, 5, 10**6, 5 << 20])
            draft.is_cut = True
        case _:
            i = rng.randrange(len(draft.headers))
            draft.headers[i] = draft.headers[i][::-1] if rng.random() < 0.3 else draft.headers[i] + rng.choice(["\t", "é", ",,", " x"])  # fmt: skip
