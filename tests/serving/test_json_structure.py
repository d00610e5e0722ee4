"""How much structure a body may have, and that strings are not taken for it."""

from __future__ import annotations

import json

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edgeagent.errors import BadRequest
from edgeagent.serving import json_structure
from edgeagent.serving.json_structure import MAX_DEPTH, MAX_KEYS
from tests.conftest import n_examples

M = 4 << 20
NASTY = {
    "an array of numbers": b'{"a":[' + b"0," * (M // 2 - 9) + b"0]}",
    "an array of arrays": b'{"a":[' + b"[]," * (M // 3 - 9) + b"[]]}",
    "an array of objects": b'{"a":[' + b"{}," * (M // 3 - 9) + b"{}]}",
    "an array of strings": b'{"a":[' + b'"",' * (M // 3 - 9) + b'""]}',
    "strings with escaped quotes": b'{"a":[' + b'"\\",",' * 300_000 + b'""]}',
    "strings with backslashes": b'{"a":[' + b'"\\\\",' * 300_000 + b'""]}',
    "a wide object": b"{" + b",".join(b'"%d":1' % i for i in range(300_000)) + b"}",
    "one key again and again": b"{" + b'"a":1,' * 300_000 + b'"a":1}',
    "brackets without an end": b"[" * M,
    "a number of a million digits": b'{"a":' + b"9" * 1_000_000 + b"}",
    "a fraction of a million digits": b'{"a":0.' + b"9" * 1_000_000 + b"}",
    "many long numbers": b'{"a":[' + (b"0." + b"7" * 380 + b"e-300,") * 10_000 + b"1]}",
}


@pytest.mark.parametrize("raw", NASTY.values(), ids=list(NASTY))
def test_too_much_is_refused_before_it_is_parsed(raw):
    with pytest.raises(BadRequest, match="more than"):
        json_structure.check_text(raw)


TEXTS = {
    "prose": b"Hello, world. " * (M // 15),
    "commas": b"," * (M - 100),
    "brackets": b"[{," * (M // 3 - 99),
    "escaped quotes": b'\\",' * (M // 3 - 99),
    "backslashes": b"\\\\" * (M // 2 - 99),
    "digits": b"7" * (M - 100),
    "json in json": json.dumps(json.dumps([{"a": [1, 2]}] * 40_000)).encode()[1:-1],
    "umlauts": "ä".encode() * (M // 2 - 99),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_a_text_may_hold_whatever_it_likes(text):
    raw = b'{"a":"' + text + b'"}'
    json_structure.check_text(raw)
    json_structure.check_value(msgspec.json.decode(raw))


def test_what_clients_send_at_most_passes():
    token_ids = {"input": [[1] * 512] * 1000}
    messages = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}] * 4096}
    properties = {f"p{i}": {"type": "string", "description": "d"} for i in range(150)}
    tools = {"tools": [{"function": {"parameters": {"properties": properties}}}] * 64}
    for value in (token_ids, messages, tools):
        json_structure.check_text(json.dumps(value).encode())
        json_structure.check_value(value)


def nested(depth: int) -> dict[str, object]:
    value: object = 1
    for i in range(depth):
        value = [value] if i % 2 else {"a": value}
    return {"a": value}


def test_depth_and_keys_are_bounded():
    json_structure.check_value(nested(MAX_DEPTH - 1))
    with pytest.raises(BadRequest, match="nested deeper"):
        json_structure.check_value(nested(MAX_DEPTH))
    json_structure.check_value({str(i): 1 for i in range(MAX_KEYS)})
    with pytest.raises(BadRequest, match=f"{MAX_KEYS + 1} keys"):
        json_structure.check_value({"a": [{str(i): 1 for i in range(MAX_KEYS + 1)}]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5)
    ),
    max_leaves=40,
)


def n_values(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(n_values, value.values()))
    return 1 + sum(map(n_values, value)) if isinstance(value, list) else 1


@hypothesis.given(st.dictionaries(st.text(max_size=9), JSON, max_size=5), st.booleans())
@hypothesis.settings(max_examples=n_examples(200), deadline=None)
def test_no_text_with_fewer_values_than_the_bound_is_refused(value, is_ascii):
    """Counted with the bound at what it has, and refused with a bound far below."""
    raw = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    empty = sum(json.dumps(part).count("[]") + json.dumps(part).count("{}") for part in [value])
    with pytest.MonkeyPatch.context() as patch:
        calls = iter([True])  # looks closely
        patch.setattr(json_structure, "_has_long_number", lambda text: next(calls, False))
        patch.setattr(json_structure, "MAX_VALUES", n_values(value) + empty + 1)
        json_structure.check_text(raw)
        calls = iter([True])
        patch.setattr(json_structure, "MAX_VALUES", max(0, n_values(value) // 2 - 1))
        if n_values(value) > 3:
            with pytest.raises(BadRequest):
                json_structure.check_text(raw)
