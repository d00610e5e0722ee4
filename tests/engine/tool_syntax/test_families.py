"""Each family of call syntax: what it reads, where it finds a call, what its grammar lets through."""

# ruff: noqa: E501
from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeagent.engine.structured.grammar import JSON_STYLE, LIMITS
from edgeagent.engine.structured.schema_rewrite import narrowed
from edgeagent.engine.tool_syntax import FAMILIES, PLAIN, chosen
from edgeagent.engine.tool_syntax.tool_syntax import Family, Function, quoted
from tests.conftest import n_examples

BY_NAME = {family.name: family for family in FAMILIES}
NAMES = frozenset({"lamp", "lamp_off", "get_time"})

# What a model writes, and the calls in it.
WRITTEN: list[tuple[str, str, list[tuple[str, Any]]]] = [
    ("plain", '{"name":"lamp","arguments":{"on":true}}', [("lamp", {"on": True})]),
    ("plain", '{"name":"get_time","arguments":{}}', [("get_time", {})]),
    ("plain", '{ "name" : "lamp" ,\n "arguments" : {"a": "}\\"{"} }\n', [("lamp", {"a": '}"{'})]),
    ("plain", '{"name":"a","arguments":{"x":[1,{"y":"]"}]}}\n{"name":"b","arguments":{}}', [("a", {"x": [1, {"y": "]"}]}), ("b", {})]),
    ("plain", '{"name":"lamp","arguments":{"arguments":{"name":"x"}}}', [("lamp", {"arguments": {"name": "x"}})]),
    ("hermes", '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>', [("lamp", {"on": True})]),
    ("hermes", '<tool_call>\n{"name": "a", "arguments": {"t": "</tool_call>"}}\n</tool_call>\n<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>', [("a", {"t": "</tool_call>"}), ("b", {})]),
    ("llama3", '{"name": "lamp", "parameters": {"on": true}}', [("lamp", {"on": True})]),
    ("llama3", '<|python_tag|>{"name": "lamp", "parameters": {"é": "\\u00e9"}}', [("lamp", {"é": "é"})]),
    ("mistral", '[TOOL_CALLS] [{"name": "lamp", "arguments": {"on": true}}, {"name": "b", "arguments": {}}]', [("lamp", {"on": True}), ("b", {})]),
    ("mistral", '[TOOL_CALLS][{"name": "lamp", "arguments": {}, "id": "abcdefghi"}]', [("lamp", {})]),
    ("mistral-args", '[TOOL_CALLS]lamp[ARGS]{"on": true}[TOOL_CALLS]b[ARGS]{}', [("lamp", {"on": True}), ("b", {})]),
    ("mistral-args", '[TOOL_CALLS]lamp[CALL_ID]abcdefghi[ARGS]{"on": true}', [("lamp", {"on": True})]),
    ("functiongemma", "<start_function_call>call:lamp{on:true,room:<escape>hall<escape>}<end_function_call>", [("lamp", {"on": True, "room": "hall"})]),
    ("functiongemma", "<start_function_call>call:a{}<end_function_call><start_function_call>call:b{n:-1.5e3,l:[1,<escape>,]}\"<escape>],o:{k:null}}<end_function_call>", [("a", {}), ("b", {"n": -1500.0, "l": [1, ',]}"'], "o": {"k": None}})]),
    ("functiongemma", '<start_function_call>call:a{"x y": "JSON \\" as it is", t:<escape>line\n"two"<escape>}<end_function_call>', [("a", {"x y": 'JSON " as it is', "t": 'line\n"two"'})]),
    ("functiongemma", "<start_function_call>call:a{e:[],x:[[1],[2,3]],z:<escape><escape>}<end_function_call>", [("a", {"e": [], "x": [[1], [2, 3]], "z": ""})]),
    ("gemma4", '<|tool_call>call:lamp{on:false,room:<|"|>hall<|"|>}<tool_call|>', [("lamp", {"on": False, "room": "hall"})]),
]  # fmt: skip


def read(family: Family, pieces: list[str]) -> list[tuple[str, Any]]:
    """The calls in some pieces; what is told of each piece must agree with what is finished."""
    reader = family.reader()
    told: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    finished: list[tuple[str, str]] = []
    for piece in pieces:
        for delta in reader.feed(piece):
            assert (delta.name is not None) == (delta.call not in names), (
                "the first piece has the name"
            )
            names.setdefault(delta.call, delta.name or "")
            told.setdefault(delta.call, []).append(delta.arguments)
        finished += reader.finished()
    assert [names[i] for i in range(len(finished))] == [name for name, _ in finished]
    assert ["".join(told[i]) for i in range(len(finished))] == [text for _, text in finished]
    return [(name, json.loads(text)) for name, text in finished]


@pytest.mark.parametrize(("name", "text", "calls"), WRITTEN)
def test_calls_are_read_however_their_text_is_split(name, text, calls):
    family = BY_NAME[name]
    assert read(family, [text]) == calls
    assert read(family, list(text)) == calls
    for i in range(1, len(text)):
        assert read(family, [text[:i], text[i:]]) == calls
    for size in (2, 3, 7):
        assert read(family, [text[i : i + size] for i in range(0, len(text), size)]) == calls


@pytest.mark.parametrize("name", BY_NAME)
def test_a_call_that_is_cut_off_has_the_beginning_of_its_arguments(name):
    family = BY_NAME[name]
    text = next(text for n, text, _ in WRITTEN if n == name)
    for i in range(len(text)):
        reader = family.reader()
        pieces = [delta.arguments for delta in reader.feed(text[:i])]
        whole = "".join(d.arguments for d in family.reader().feed(text))
        assert whole.startswith("".join(pieces))


HOSTILE = st.lists(
    st.sampled_from([
        "{", "}", "[", "]", '"', "\\", ":", ",", '"name"', '{"name":"', '"arguments":', "call:", "<", "`", "```", "json",
        "lamp", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<start_function_call>", "<escape>", "<esc", "\n", " ",
        "{}", "\ud800", "\x00", "é", "<|python_tag|>", "null", "1e9",
    ]),
    max_size=30,
)  # fmt: skip


@settings(max_examples=n_examples(300), deadline=None)
@given(pieces=HOSTILE, name=st.sampled_from(sorted(BY_NAME)))
@example(pieces=["<start_function_call>call:a{", "}}}}", "]"], name="functiongemma")
def test_no_text_hurts_a_reader_and_pieces_say_what_the_whole_says(pieces, name):
    family = BY_NAME[name]
    whole, split = family.reader(), family.reader()
    told = [whole.feed("".join(pieces)), [d for piece in pieces for d in split.feed(piece)]]
    texts = [
        ["".join(d.arguments for d in deltas if d.call == i) for i in range(9)] for deltas in told
    ]
    assert texts[0] == texts[1]
    assert whole.finished() == split.finished()


@settings(max_examples=n_examples(300), deadline=None)
@given(pieces=HOSTILE, name=st.sampled_from(sorted(BY_NAME)), is_first=st.booleans())
def test_a_place_that_is_found_lies_within_the_text(pieces, name, is_first):
    text = "".join(pieces)
    found = BY_NAME[name].find(text, NAMES, is_first=is_first)
    if found is not None:
        assert 0 <= found.start < len(text)
        assert found.end is None or found.start < found.end <= len(text)


PLACES: list[tuple[str, str, bool, int | None, str | None]] = [
    ("plain", '{"name":"', True, 0, '{"name":"'),
    ("plain", ' \n{ "name": "', True, 2, '{"name":"'),
    ("plain", '```json\n{"name":"', True, 0, '{"name":"'),
    ("plain", '{"name":"', False, 0, None),
    ("plain", '{"name":"lam', False, 0, None),
    ("plain", '{"name":"lamp"', False, 0, '{"name":"lamp"'),
    ("plain", '{"name":"lamp_', False, 0, None),
    ("plain", '{"name":"Alice"', False, None, None),
    ("plain", 'A person: {"age":5,"name":"', True, None, None),
    ("plain", 'See: {"name": "get_time"', True, 5, '{"name":"get_time"'),
    ("plain", 'See: {"name": "', True, 5, None),
    ("plain", "Set {x", True, None, None),
    ("plain", "Set {", True, 4, None),
    ("plain", '{"na', True, 0, None),
    ("plain", "a ``", False, 2, None),
    ("plain", "```python\nx = 1", True, None, None),
    ("plain", "```pyth", True, 0, None),
    ("plain", '{{"name":"', True, 1, None),
    ("plain", '{{"name":"lamp"', True, 1, '{"name":"lamp"'),
    ("plain", "no call", True, None, None),
    ("plain", "{" + " " * 500, True, None, None),
    ("hermes", "Let me see. <tool_c", True, 12, None),
    ("hermes", "Let me see. <tool_call>", True, 12, "<tool_call>"),
    ("hermes", "a < b", True, None, None),
    ("hermes", '{"name":"lamp"', True, None, None),
    ("llama3", "<|python_tag|>", False, 0, ""),
    ("llama3", '{"name": "', True, 0, '{"name": "'),
    ("llama3", 'x {"name": "lamp"', False, 2, '{"name": "lamp"'),
    ("mistral", "[TOOL_CALLS]", False, 0, "[TOOL_CALLS]"),
    ("mistral", "an [array", False, None, None),
    ("mistral-args", "x[TOOL", False, 1, None),
    ("functiongemma", "<start_function_call>", False, 0, "<start_function_call>"),
    ("gemma4", "ok <|tool", False, 3, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "is_first", "start", "head"), PLACES)
def test_a_call_is_found_where_one_begins(name, text, is_first, start, head):
    found = BY_NAME[name].find(text, NAMES, is_first=is_first)
    if start is None:
        assert found is None
        return
    assert found is not None and found.start == start
    assert (found.head if found.end is not None else None) == head


SAMPLES: list[tuple[str, str | None]] = [
    ('<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>', "hermes"),
    ("{%- for tool_call in message.tool_calls %}'<tool_call>\\n{\"name\": \"'", "hermes"),
    ("<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>", None),
    ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>", None),
    ('<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "f", "parameters": {"a": 1}}<|eot_id|>', "llama3"),
    ('[INST] x[/INST][TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "123456789"}]</s>', "mistral"),
    ('[INST]x[/INST][TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"a": 1}</s>', "mistral-args"),
    ("<start_of_turn>model\n<start_function_call>call:f{a:1}<end_function_call>", "functiongemma"),
    ('<|turn>model\n<|tool_call>call:f{a:1}<tool_call|>', "gemma4"),
    ('assistant: {"name": "f", "arguments": {"a": 1}}', "plain"),
    ("<|im_start|>user\nHi<|im_end|>", None),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "name"), SAMPLES)
def test_a_family_is_known_by_how_a_template_writes_calls(sample, name):
    found = chosen(sample)
    assert (found.name if found else None) == name


# --- grammars

LAMP: dict[str, Any] = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["on"],
    "additionalProperties": False,
}  # fmt: skip
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
FUNCTIONS = [Function("lamp", LAMP), Function("lamp_off", NOTHING)]


def style_of(family: Family) -> dict[str, Any]:
    return JSON_STYLE | {"item_separator": family.style.item, "key_separator": family.style.key}


def matcher(family: Family, n_calls: int, functions: list[Function] = FUNCTIONS) -> Any:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    grammar = "start: calls\n" + family.grammar(functions, n_calls, quoted, style_of(family))
    made = LLMatcher(
        LLTokenizer("byte", slices=[]), grammar, log_level=0, limits=LLParserLimits(**LIMITS)
    )
    assert not made.is_error(), made.get_error() + grammar
    return made


def is_accepted(
    family: Family, text: str, n_calls: int = 1, functions: list[Function] = FUNCTIONS
) -> bool:
    made = matcher(family, n_calls, functions)
    tokens = list(text.encode())
    return made.try_consume_tokens(tokens) == len(tokens) and bool(made.is_accepting())


def several(family: Family, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Calls in one answer."""
    if family.name == "mistral":
        inner = [family.style.dump({"name": n, "arguments": a}) for n, a in calls]
        return f"[TOOL_CALLS] [{', '.join(inner)}]"
    separator = "\n" if family.name in ("plain", "hermes") else ""
    return separator.join(family.call_text(name, arguments) for name, arguments in calls)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_grammar_lets_through_calls_and_nothing_else(family):
    on = ("lamp", {"on": True})
    assert is_accepted(family, several(family, [on]))
    assert is_accepted(family, several(family, [("lamp_off", {})]))
    assert is_accepted(
        family,
        several(family, [("lamp", {"level": 3, "on": False, "room": "hall"})])
        if isinstance(family, type(BY_NAME["functiongemma"]))
        else several(family, [("lamp", {"on": False, "room": "hall", "level": 3})]),
    )
    for wrong in (
        ("lamp", {}),
        ("lamp", {"on": 1}),
        ("lamp", {"on": True, "room": "cellar"}),
        ("lamp", {"on": True, "level": 10}),
        ("lamp", {"on": True, "extra": 1}),
        ("lamp_off", {"on": True}),
        ("lam", {"on": True}),
        ("lamp_of", {}),
    ):
        assert not is_accepted(family, several(family, [wrong])), wrong
    assert not is_accepted(family, "")
    assert not is_accepted(family, "Hello")
    assert not is_accepted(family, several(family, [on])[:-1])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_grammar_bounds_the_number_of_calls(family):
    calls = [("lamp", {"on": True}), ("lamp_off", {}), ("lamp", {"on": False})]
    assert not is_accepted(family, several(family, calls[:2]), n_calls=1)
    if family.max_calls > 1:
        assert is_accepted(family, several(family, calls[:2]), n_calls=2)
        assert is_accepted(family, several(family, calls), n_calls=family.max_calls)
        assert not is_accepted(family, several(family, calls), n_calls=2)
        assert not is_accepted(family, several(family, calls * 3), n_calls=family.max_calls)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_a_grammar_forces_begins_a_call(family):
    made = matcher(family, 1, [Function("lamp_off", NOTHING)])
    forced = made.compute_ff_bytes().decode()
    assert read(family, [several(family, [("lamp_off", {})])]) == [("lamp_off", {})]
    assert len(forced) > len("lamp_off")


def test_the_plain_family_writes_what_small_models_are_trained_on():
    assert PLAIN.call_text("book_flight", {}) == '{"name":"book_flight","arguments":{}}'
    made = matcher(PLAIN, 1, [Function("book_flight", NOTHING)])
    assert made.compute_ff_bytes() == b'{"name":"book_flight","arguments":{}}'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("abc \"'\\{}[]:,\n\té<>/", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_c", "D1"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ARGUMENTS = st.dictionaries(st.sampled_from(["x", "y_z", "Key"]), VALUES, max_size=3)


@settings(max_examples=n_examples(200), deadline=None)
@given(
    arguments=ARGUMENTS,
    name=st.sampled_from(sorted(BY_NAME)),
    cuts=st.lists(st.integers(0, 200), max_size=5),
)
def test_what_a_family_writes_it_reads(arguments, name, cuts):
    text = BY_NAME[name].call_text("lamp", arguments)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert read(BY_NAME[name], pieces) == [("lamp", arguments)]


GEMMA_SCHEMAS: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "string"}, ["", "a {b}, c:d"], [1]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^[a-c]+$"}, ["abc"], ["d", ""]),
    ({"type": "string", "format": "date"}, ["2026-01-31"], ["soon"]),
    ({"enum": ["x", 1, None, True]}, ["x", 1, None, True], ["y", 2, False]),
    ({"const": "only"}, ["only"], ["other"]),
    ({"enum": ["é\n\"q\" \\", "日本"]}, ["é\n\"q\" \\", "日本"], ["e"]),
    ({"type": "string", "enum": ["", "a<b"]}, ["", "a<b"], ["c"]),
    ({"type": ["string", "null"]}, ["s", None], [1]),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "s"], [True]),
    ({"type": "number", "minimum": 0.5}, [0.5, 2], [0]),
    ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, [[], ["a"], ["a", "b"]], [["a", "b", "c"], [1]]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [[1], [1, 2, 3, 4]], [[], ["a"]]),
    ({"type": "array", "maxItems": 0}, [[]], [[1]]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}}, "required": ["b"]},
     [{"b": 1}, {"a": 1, "b": 2}, {"b": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}], [{}, {"a": 1}, {"b": 1, "d": 2}]),
    ({"$ref": "#/$defs/n"}, [1], ["a"]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"any key": 1}], [{"k": "v"}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), GEMMA_SCHEMAS)
@pytest.mark.parametrize("name", ["functiongemma", "gemma4"])
def test_gemmas_notation_is_held_to_the_schema_or_is_json(name, schema, good, bad):
    family = BY_NAME[name]
    root = {
        "type": "object",
        "properties": {"v": schema},
        "required": ["v"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer"}},
    }
    functions = [Function("f", narrowed(root, is_closed=True))]

    def is_allowed(value: Any) -> bool:
        native = family.call_text("f", {"v": value})
        written = family._written(value)  # type: ignore[attr-defined]
        in_json = native.replace(written, json.dumps(value, separators=(", ", ": ")), 1)
        return any(is_accepted(family, text, 1, functions) for text in (native, in_json))

    for value in good:
        assert is_allowed(value), value
    for value in bad:
        assert not is_allowed(value), value
