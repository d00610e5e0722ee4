"""Answers with calls and reasoning, from the request to the pieces that leave: every part but the weights."""

# ruff: noqa: E501
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.engine.llama.model import Llama
from edgeagent.errors import (
    InvalidParameter,
    SchemaUnsatisfiable,
    UnsupportedParameter,
)
from edgeagent.types.answer import TopLogprob
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form
from edgeagent.types.tools import Tool, ToolUse
from tests.conftest import n_examples
from tests.engine.scripted import Stage, Told

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}"
LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}"
SHOWN = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"


def template(call: str, end: str = "") -> str:
    """A template that shows tools, past calls and results."""
    return SHOWN + LOOP.replace("CALL", call) + end


ARGUMENTS = "{{ c.function.arguments | tojson }}"
TEMPLATES = {
    "plain": PLAIN,
    "hermes": template('<tool_call>\n{"name": "{{ c.function.name }}", "arguments": ' + ARGUMENTS + "}\n</tool_call>"),
    "llama3": template('<|start_header_id|>{"name": "{{ c.function.name }}", "parameters": ' + ARGUMENTS + "}"),
    "mistral": template('[TOOL_CALLS] [{"name": "{{ c.function.name }}", "arguments": ' + ARGUMENTS + ', "id": "{{ c.id }}"}]'),
    "mistral-args": template("[TOOL_CALLS]{{ c.function.name }}[ARGS]" + ARGUMENTS),
    "functiongemma": template("<start_function_call>call:{{ c.function.name }}{{ '{' }}{% for k, v in c.function.arguments.items() %}{{ k }}:<escape>{{ v }}<escape>{% endfor %}{{ '}' }}<end_function_call>"),
    "thinking": SHOWN + LOOP.replace("CALL", '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": ' + ARGUMENTS + "}\n</tool_call>")
    + "{{ '<think>\\n' if enable_thinking is not defined or enable_thinking else '<think>\\n\\n</think>\\n\\n' }}",
    "think-self": PLAIN + "{# </think> #}",
}  # fmt: skip
LAMP = Tool(
    name="lamp",
    description="Switch a lamp",
    parameters={
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "room": {"type": "string", "maxLength": 12}},
        "required": ["on"],
    },
)
TIME = Tool(name="get_time")
TOOLS = [LAMP, TIME]
AUTO = ToolUse(tools=TOOLS)
REQUIRED = ToolUse(tools=TOOLS, choice="required")
ON = '{"name": "lamp", "arguments": {"on": true}}'
WROTE = {
    "plain": ON,
    "hermes": f"<tool_call>\n{ON}\n</tool_call>",
    "llama3": ON.replace("arguments", "parameters"),
    "mistral": f"[TOOL_CALLS] [{ON}]",
    "mistral-args": '[TOOL_CALLS]lamp[ARGS]{"on": true}',
    "functiongemma": "<start_function_call>call:lamp{on:true}<end_function_call>",
}


# Scripts whose text is only part of what is said, and what its tokens add up to.
SAID_IN_PART = [
    ("hermes", f"Let me see.\n\n{WROTE['hermes']}", "Let me see."),
    ("hermes", WROTE["hermes"], ""),
    ("mistral", f"Well: {WROTE['mistral']}", "Well:"),
    ("thinking", "<think>\nI see </think>\n\nSee what I see", "See what I see"),
    ("think-self", "<think>\nSee?\n</think>\n\nSee", "See"),
    ("think-self", "Hello.", "Hello."),
    ("think-self", "<think>\nnever ends", ""),
    ("plain", "x < y <thin", "x < y <thin"),
]


@pytest.fixture(scope="module")
def llama(shallow: Any) -> Iterator[Llama]:
    loaded = Llama(EngineConfig(model_id="shallow", path=str(shallow), n_ctx=4096, n_seq=1))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def stages(llama: Llama) -> Iterator[dict[str, Stage]]:
    made = {name: Stage(llama, text) for name, text in TEMPLATES.items()}
    yield made
    for stage in made.values():
        stage.close()


def calls(told: Told) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in told.calls]


@pytest.mark.parametrize("name", WROTE)
def test_a_call_behind_free_text_is_a_call(stages, name):
    told = stages[name].ask(f"Let me see.\n\n{WROTE[name]}", AUTO)
    assert told.error is None
    assert (told.text, told.finish, calls(told)) == (
        "Let me see.",
        "tool_calls",
        [("lamp", {"on": True})],
    )


@pytest.mark.parametrize("name", WROTE)
def test_an_answer_that_is_a_call_has_no_text(stages, name):
    told = stages[name].ask(WROTE[name], AUTO)
    assert (told.text, told.finish, calls(told)) == ("", "tool_calls", [("lamp", {"on": True})])
    first, *later = told.deltas
    assert (first.name, first.arguments) == ("lamp", "")
    assert all(delta.name is None for delta in later)


@pytest.mark.parametrize("name", WROTE)
def test_arguments_are_held_to_the_schema_once_a_call_has_begun(stages, name):
    wrong = WROTE[name].replace("true", '"yes", "volume": 11')
    told = stages[name].ask(f"Well: {wrong}", AUTO)
    assert told.error is None and told.finish in ("tool_calls", "length")
    called, arguments = told.calls[0]
    if told.finish == "tool_calls":
        jsonschema.validate(json.loads(arguments), LAMP.parameters)
    assert called == "lamp"


@pytest.mark.parametrize("name", WROTE)
@pytest.mark.parametrize(
    "script", ["No.", "", '{"name": "door", "arguments": {}}', "<tool_call>", "[TOOL_CALLS]x"]
)
def test_a_call_that_is_required_comes_whatever_the_model_would_say(stages, name, script):
    told = stages[name].ask(script, REQUIRED)
    assert (told.text, told.finish, told.error) == ("", "tool_calls", None)
    for called, arguments in calls(told):
        jsonschema.validate(
            arguments, LAMP.parameters if called == "lamp" else {"maxProperties": 0}
        )


@pytest.mark.parametrize("name", WROTE)
def test_a_named_tool_is_called_once(stages, name):
    told = stages[name].ask(WROTE[name], ToolUse(tools=TOOLS, choice="required", name="get_time"))
    assert told.calls == [("get_time", "{}")] and told.finish == "tool_calls"


def two(name: str) -> str:
    other = WROTE[name].replace("true", "false")
    if name == "mistral":
        return WROTE[name][:-1] + ", " + ON.replace("true", "false") + "]"
    return f"{WROTE[name]}\n{other}" if name in ("plain", "hermes") else WROTE[name] + other


@pytest.mark.parametrize("name", WROTE)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_several_calls_come_where_they_may(stages, name, choice):
    both = [("lamp", {"on": True}), ("lamp", {"on": False})]
    told = stages[name].ask(two(name), ToolUse(tools=TOOLS, choice=choice))
    assert calls(told) == (both if name != "llama3" else both[:1])
    told = stages[name].ask(two(name), ToolUse(tools=TOOLS, choice=choice, is_parallel=False))
    assert (calls(told), told.finish) == (both[:1], "tool_calls")


def test_a_model_that_was_never_taught_ends_where_it_repeats_itself(stages):
    again = f"{ON}\n" * 5
    assert calls(stages["plain"].ask(again, AUTO)) == [("lamp", {"on": True})]
    taught = f"<tool_call>\n{ON}\n</tool_call>\n" * 3
    assert len(stages["hermes"].ask(taught.strip(), AUTO).calls) == 3


@pytest.mark.parametrize("name", WROTE)
def test_a_call_is_closed_where_the_answer_may_be_no_longer(stages, name):
    whole = stages[name].ask(WROTE[name], AUTO)
    cut = set()
    for max_new in range(1, whole.usage.n_generated):
        told = stages[name].ask(WROTE[name], AUTO, max_new=max_new)
        assert told.calls or told.usage.n_generated == max_new
        if told.finish == "length":
            for called, arguments in told.calls:
                schema = {tool.name: tool.parameters for tool in TOOLS}[called]
                jsonschema.validate(json.loads(arguments), {"type": "object"} | schema)
            cut.add(len(told.calls))
    assert cut == {0, 1}


@pytest.mark.parametrize("name", WROTE)
def test_text_without_a_call_is_the_text(stages, name):
    for script in (
        'A name is {"name": "Alice"}.',
        "1 < 2 and [3]",
        "{",
        '```json\n{"a": 1}\n```',
        "Ends with <tool_",
        " lead ",
    ):
        told = stages[name].ask(script, AUTO)
        assert (told.text, told.finish, told.calls) == (script, "stop", []), script


def test_free_text_costs_no_mask_and_is_drawn_as_without_tools(stages, monkeypatch):
    from edgeagent.engine.structured.constraint import Constraint

    asked = []
    monkeypatch.setattr(Constraint, "allowed", lambda self: asked.append(self) or b"")
    told = stages["hermes"].ask("Just words, and many of them.", AUTO)
    assert told.text == "Just words, and many of them." and asked == []


def test_a_stop_string_is_for_text_and_not_for_calls(stages):
    told = stages["plain"].ask(f"One. Two. {ON}", AUTO, stop=["Two"])
    assert (told.text, told.finish, told.calls) == ("One. ", "stop", [])
    told = stages["plain"].ask(f"One. {ON}", AUTO, stop=["true", "lamp", '{"na'])
    assert told.finish in ("stop", "tool_calls") and told.error is None
    told = stages["hermes"].ask(f"One. {WROTE['hermes']}", AUTO, stop=["true", "lamp", "name"])
    assert (told.text, told.finish, len(told.calls)) == ("One.", "tool_calls", 1)


def test_a_token_that_goes_beyond_what_the_grammar_bears_is_spelled_anew(stages):
    # The vocabulary has tokens that end an opening and go on with what a compact call has not.
    for script in (
        '{"name":   "lamp" , "arguments":{"on":true}}',
        '{ "name" :"lamp",\n"arguments": {"on":true}}',
        '<tool_call>{"name":"lamp","arguments":{"on":true}}',
    ):
        for name in ("plain", "hermes"):
            told = stages[name].ask(f"x {script}", AUTO)
            assert told.error is None
            if name == "plain" or "tool_call" in script:
                assert calls(told) == [("lamp", {"on": True})]


# --- reasoning


def test_what_the_template_opens_and_the_model_closes_is_reasoning(stages):
    told = stages["thinking"].ask("<think>\nThe sky,\nhm.\n</think>\n\nIt is blue.")
    assert (told.reasoning, told.text, told.finish) == ("The sky,\nhm.", "It is blue.", "stop")
    assert 0 < told.usage.n_reasoning < told.usage.n_generated


def test_a_model_may_open_the_section_itself(stages):
    told = stages["think-self"].ask("\n<think> Hm. </think>\n\nIt is blue.")
    assert (told.reasoning, told.text) == ("Hm.", "It is blue.")
    told = stages["think-self"].ask("It is <think> blue.")
    assert (told.reasoning, told.text) == ("", "It is <think> blue.")
    assert told.usage.n_reasoning == 0


def test_a_section_without_an_end_is_all_reasoning(stages):
    told = stages["thinking"].ask("<think>\nAnd so on </thi")
    assert (told.reasoning, told.text, told.finish) == ("And so on </thi", "", "stop")
    told = stages["thinking"].ask("<think>\n" + "And so on. " * 50, max_new=10)
    assert told.finish == "length" and told.text == "" and told.usage.n_reasoning == 10


def test_a_template_can_be_told_not_to_open_it(stages):
    from edgeagent.types.prompt import Prompt

    stage = stages["thinking"]
    prompt = Prompt(
        messages=[{"role": "user", "content": "Go."}], variables={"enable_thinking": False}
    )
    told = stage.ask("<think>\n\n</think>\n\nBlue.", prompts=[prompt])
    assert (told.reasoning, told.text) == ("", "Blue.")


@pytest.mark.parametrize("use", [AUTO, REQUIRED])
def test_reasoning_comes_before_calls(stages, use):
    script = f"<think>\nA {{}} lamp?\n</think>\n\n{WROTE['hermes']}"
    told = stages["thinking"].ask(script, use)
    assert told.error is None
    assert (told.reasoning, told.text, calls(told)) == ("A {} lamp?", "", [("lamp", {"on": True})])


def test_a_model_that_ends_within_its_reasoning_answers_all_the_same_where_it_must(stages):
    told = stages["thinking"].ask("<think>\nI am done.", REQUIRED)
    assert (told.reasoning, told.finish, told.error) == ("I am done.", "tool_calls", None)
    form = Form(kind="json_schema", text='{"enum":["yes"]}')
    told = stages["thinking"].ask("<think>\nI am done.", form=form)
    assert (told.reasoning, told.text, told.finish) == ("I am done.", '"yes"', "stop")


def test_a_form_holds_for_what_comes_after_the_reasoning(stages):
    form = Form(
        kind="json_schema",
        text='{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}',
    )
    told = stages["thinking"].ask('<think>\nFree {text}.\n</think>\n\n{"a": 5}', form=form)
    assert (told.reasoning, told.text, told.finish) == ("Free {text}.", '{"a":5}', "stop")


@pytest.mark.parametrize("max_new", [1, 4, 9, 14])
def test_reasoning_that_is_cut_before_its_form_begins_ends_with_the_form_all_the_same(
    stages, max_new
):
    schema = {"type": "object", "properties": {"a": {"enum": ["yes"]}}, "required": ["a"]}
    form = Form(kind="json_schema", text=json.dumps(schema))
    script = (
        "<think>\nLet me think about it, then about that, then once more, and so on.\n</think>\n\n"
    )
    told = stages["thinking"].ask(script + '{"a": "yes"}', form=form, max_new=max_new)
    assert (told.text, told.finish, told.error) == ('{"a":"yes"}', "length", None)
    assert told.usage.n_reasoning >= min(max_new, 4) - 3
    if max_new >= 4:
        assert told.reasoning.startswith("Let") and "</think>" not in told.reasoning


@pytest.mark.parametrize("max_new", [2, 9])
def test_reasoning_that_is_cut_before_a_required_call_ends_with_the_call(stages, max_new):
    told = stages["thinking"].ask(
        "<think>\nHm, hm, hm, hm, hm, hm, hm, hm.", REQUIRED, max_new=max_new
    )
    assert told.finish == "length" and told.error is None
    (call,) = calls(told)
    assert call[0] in ("lamp", "get_time")


# --- tools and a form


FORM = Form(kind="json_schema", text='{"type":"object","properties":{"name":{"enum":["lamp","x"]},"n":{"type":"integer"}},"required":["name","n"]}')  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "hermes", "functiongemma"])
def test_with_a_form_an_answer_is_a_call_or_has_the_form(stages, name):
    told = stages[name].ask(WROTE[name], AUTO, form=FORM)
    assert (told.text, calls(told), told.finish) == ("", [("lamp", {"on": True})], "tool_calls")
    for value in ("x", "lamp"):
        told = stages[name].ask(f'{{"name":"{value}","n":5}}', AUTO, form=FORM)
        assert (told.text, told.finish, told.error) == (f'{{"name":"{value}","n":5}}', "stop", None)
    told = stages[name].ask("Words.", AUTO, form=FORM)
    assert told.finish in ("stop", "tool_calls", "length") and "Words" not in told.text


def test_a_grammar_goes_without_tools(stages):
    with pytest.raises(UnsupportedParameter, match="goes without `tools`") as caught:
        stages["plain"].ask("x", AUTO, form=Form(kind="regex", text="a+"))
    assert caught.value.param == "response_format"


# --- schemas


@pytest.mark.parametrize(
    ("parameters", "error", "said"),
    [
        ({"properties": {"a": {"not": {}}}}, UnsupportedParameter, "Tool 'bad'.*`not` at #/properties/a"),
        ({"type": "string"}, InvalidParameter, "Tool 'bad'.*`type` at #"),
        ({"type": ["object", "null"]}, InvalidParameter, "Tool 'bad'.*`type` at #"),
        ({"properties": {"a": {"type": "strin"}}}, InvalidParameter, "Tool 'bad'.*`type` at #/properties/a/type"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, InvalidParameter, "Tool 'bad'.*`pattern` at #/properties/a"),
        ({"properties": {"a": {"type": "string", "minLength": 3, "maxLength": 1}}, "required": ["a"]}, SchemaUnsatisfiable, "Tool 'bad'.*'a' is unsatisfiable"),
        ({"$ref": "http://example.com/x"}, UnsupportedParameter, "Tool 'bad'.*ref"),
        ({"properties": {f"p{i}": {} for i in range(600)}}, InvalidParameter, "Tool 'bad'.*600"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["plain", "functiongemma"])
def test_a_bad_schema_is_refused_with_the_tools_name(stages, name, parameters, error, said):
    use = ToolUse(tools=[*TOOLS, Tool(name="bad", parameters=parameters, is_strict=True)])
    with pytest.raises(error, match=said) as caught:
        stages[name].ask("x", use)
    assert caught.value.param == "tools"


def test_tools_without_arguments_are_called_with_none(stages):
    for parameters in (
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"properties": {}, "required": []},
    ):
        use = ToolUse(tools=[Tool(name="go", parameters=parameters)], choice="required")
        told = stages["plain"].ask('{"name":"go","arguments":{"invented":1}}', use)
        assert (told.calls, told.finish) == ([("go", "{}")], "tool_calls")
    use = ToolUse(
        tools=[Tool(name="go", parameters={"type": "object", "additionalProperties": True})],
        choice="required",
    )
    assert stages["plain"].ask('{"name":"go","arguments":{"own":1}}', use).calls == [
        ("go", '{"own":1}')
    ]


def test_128_tools_are_one_grammar(stages):
    tools = [Tool(name=f"tool_{i}") for i in range(128)]
    tools[77] = Tool(name="tool_77", parameters=LAMP.parameters)
    told = stages["plain"].ask(
        '{"name":"tool_77","arguments":{"on":false}}',
        ToolUse(tools=tools, choice="required"),
        [{"role": "user", "content": "x"}],
    )
    assert told.calls == [("tool_77", '{"on":false}')]


# --- what the model is told

HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Light and time?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call_abcdefghi1", "type": "function", "function": {"name": "lamp", "arguments": '{"room": "hall", "on": true}'}},
        {"id": "call_abcdefghi2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "call_abcdefghi1", "content": "It is on."},
    {"role": "tool", "tool_call_id": "call_abcdefghi2", "content": "Noon."},
    {"role": "user", "content": "Thanks."},
]  # fmt: skip


def test_a_template_without_tools_is_told_in_words(stages):
    stage = stages["plain"]
    stage.ask("Fine.", AUTO, HISTORY)
    assert stage.prompt.count("<|im_start|>system") == 1
    system, _, rest = stage.prompt.partition("<|im_end|>")
    assert "Be brief." in system and '"name":"lamp"' in system and "Switch a lamp" in system
    assert '{"name":"FUNCTION","arguments":{"ARGUMENT":"VALUE"}}' in system
    assert (
        '{"name":"lamp","arguments":{"room":"hall","on":true}}\n{"name":"get_time","arguments":{}}'
        in rest
    )
    assert "Result of lamp:\nIt is on.\n\nResult of get_time:\nNoon.\n\nThanks." in rest
    assert "<|im_start|>tool" not in rest
    # Past calls are told without tools too.
    stage.ask("Fine.", None, HISTORY)
    assert "FUNCTION" not in stage.prompt and '"name":"lamp"' in stage.prompt


LAST_RESULT = [*HISTORY[:2], {**HISTORY[2], "tool_calls": HISTORY[2]["tool_calls"][:1]}, HISTORY[3]]


def test_a_model_that_was_never_taught_is_told_what_to_do_with_a_result(stages):
    stage = stages["plain"]
    stage.ask("It is.", AUTO, LAST_RESULT)
    assert "Result of lamp:\nIt is on.\n\nSay in words" in stage.prompt
    stage.ask(ON, REQUIRED, LAST_RESULT)
    assert "Say in words" not in stage.prompt
    stages["hermes"].ask("It is.", AUTO, LAST_RESULT)
    assert "Say in words" not in stages["hermes"].prompt


@pytest.mark.parametrize("name", ["plain", "hermes"])
def test_a_call_that_was_made_twice_is_not_made_a_third_time(stages, name):
    looping = [*LAST_RESULT, *LAST_RESULT[2:]]
    told = stages[name].ask(WROTE[name], AUTO, looping)
    assert (told.calls, told.finish) == ([], "stop")
    assert "Switch a lamp" not in stages[name].prompt
    told = stages[name].ask(WROTE[name], REQUIRED, looping)
    assert calls(told) == [("lamp", {"on": True})]


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama3", "functiongemma"])
def test_a_template_with_tools_is_given_them(stages, name):
    stage = stages[name]
    stage.ask("Fine.", AUTO, HISTORY)
    assert '"description": "Switch a lamp"' in stage.prompt and "FUNCTION" not in stage.prompt
    assert '"room": "hall"' in stage.prompt or "room:<escape>hall<escape>" in stage.prompt
    assert (
        stage.prompt.index("It is on.")
        < stage.prompt.index("Noon.")
        < stage.prompt.index("Thanks.")
    )
    if name == "mistral":
        assert '"id": "abcdefghi1"'[-10:] in stage.prompt
    if name == "llama3":  # one call to a message, each with its result
        assert stage.prompt.index("It is on.") < stage.prompt.index(
            '"name": "get_time", "parameters"'
        )


def test_a_named_tool_is_the_only_one_that_is_shown(stages):
    for name in ("plain", "hermes"):
        stages[name].ask("", ToolUse(tools=TOOLS, choice="required", name="get_time"))
        assert "get_time" in stages[name].prompt and "Switch a lamp" not in stages[name].prompt


# --- anything

PARTS = st.sampled_from([
    "Well. ", '{"name": "', '{"name":"lamp"', ', "arguments": {"on": true}}', "lamp", '"', "{", "}", "\n", "<tool_call>", "</tool_call>",
    "<tool", "```json\n", "é", "<think>", "</think>", "[", "1", '{"name": "get_time", "arguments": {}}',
])  # fmt: skip


@settings(
    max_examples=n_examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    parts=st.lists(PARTS, max_size=12),
    name=st.sampled_from(["plain", "hermes", "thinking"]),
    use=st.sampled_from([AUTO, REQUIRED, None]),
)
def test_no_script_breaks_an_answer(stages, parts, name, use):
    script = "".join(parts)
    told = stages[name].ask(script, use, max_new=80)
    assert told.error is None and told.finish in ("stop", "length", "tool_calls")
    assert (told.finish == "tool_calls") <= bool(told.calls)
    if told.finish == "tool_calls":
        for called, arguments in calls(told):
            jsonschema.validate(
                arguments, LAMP.parameters if called == "lamp" else {"maxProperties": 0}
            )
    if use is REQUIRED:
        assert told.finish != "stop" and told.text == ""
    if use is None:
        assert told.calls == []
        if name == "plain" and told.finish == "stop":
            assert told.text == script


TREE = Tool(
    name="plant",
    parameters={
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "maxLength": 3},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]},
                    "same": {"$ref": "#/$defs/tree/properties/kind"},
                },
                "required": ["kind", "next"],
            }
        },
    },
)


@pytest.mark.parametrize("name", WROTE)
@pytest.mark.parametrize("form", [None, FORM])
def test_references_within_a_tools_schema_are_followed(stages, name, form):
    value = {"kind": "oak", "next": {"kind": "fir", "next": None}}
    written = {"plain": '{"name": "plant", "arguments": V}', "hermes": '<tool_call>\n{"name": "plant", "arguments": V}\n</tool_call>',
               "llama3": '{"name": "plant", "parameters": V}', "mistral": '[TOOL_CALLS] [{"name": "plant", "arguments": V}]',
               "mistral-args": "[TOOL_CALLS]plant[ARGS]V", "functiongemma": "<start_function_call>call:plantV<end_function_call>"}  # fmt: skip
    told = stages[name].ask(
        written[name].replace("V", json.dumps(value)), ToolUse(tools=[TREE, TIME]), form=form
    )
    assert calls(told) == [("plant", value)] and told.finish == "tool_calls"


@pytest.mark.parametrize(
    ("name", "script", "text", "stop"),
    [(*row, []) for row in SAID_IN_PART] + [(*row, ["ee"]) for row in SAID_IN_PART[::3]],
)
def test_log_probabilities_are_those_of_the_text_alone(stages, name, script, text, stop):
    told = stages[name].ask(script, AUTO, logprobs=2, stop=stop, max_new=60)
    assert told.error is None
    expected = text.partition(stop[0])[0] if stop else text
    assert told.text == expected
    assert b"".join(one.piece for one in told.logprobs).decode() == expected
    assert all(one.top[0].logprob >= one.logprob and len(one.top) == 2 for one in told.logprobs)


def test_log_probabilities_of_a_form_are_among_what_it_allows(stages):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}}
    schema |= {"required": ["colour"], "additionalProperties": False}
    form = Form(kind="json_schema", text=json.dumps(schema))
    told = stages["think-self"].ask('{"colour":"blue"}', form=form, logprobs=3)
    assert told.text == '{"colour":"blue"}' and told.finish == "stop"
    assert b"".join(one.piece for one in told.logprobs).decode() == told.text
    forced = [one for one in told.logprobs if one.logprob == 0.0]
    assert b'{"' in b"".join(one.piece for one in forced)
    assert all(one.top == [TopLogprob(one.piece, 0.0)] for one in forced)
