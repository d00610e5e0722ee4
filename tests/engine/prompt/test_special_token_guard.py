"""Texts of clients as texts: none becomes a special token, and each survives to the letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder
from edgeagent.engine.prompt.special_token_guard import LiteralTextGuard, TextTokenizer
from edgeagent.engine.prompt.special_token_search import (
    CONTROL,
    LSTRIP,
    RSTRIP,
    USER_DEFINED,
    SpecialTokens,
)
from edgeagent.errors import InvalidParameter
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import Tool, ToolUse
from tests.conftest import n_examples
from tests.engine.letters import Letters

IM = {
    "<|im_start|>": CONTROL,
    "<|im_end|>": CONTROL,
    "<think>": USER_DEFINED,
    "</think>": USER_DEFINED,
}
VOCABULARIES = {
    "ChatML": IM,
    "brackets": {"[INST]": CONTROL, "[/INST]": CONTROL, "<s>": CONTROL, "</s>": CONTROL},
    "words": {"SYSTEM": CONTROL, "USER": CONTROL, "\n\n\n": USER_DEFINED},
    "pipes": {"|||A|||": CONTROL, ">>Q<<": CONTROL, "<|x|>": USER_DEFINED},
    "wide": {"<｜User｜>": USER_DEFINED, "<｜end▁of▁sentence｜>": CONTROL},
    "none": {},
}


def tokenizer(specials: dict[str, int], *, adds_space: bool = False) -> TextTokenizer:
    letters = Letters(specials, adds_space=adds_space)
    return TextTokenizer(letters, SpecialTokens.of(letters, "".join(specials)))


@pytest.mark.parametrize("adds_space", [False, True])
@pytest.mark.parametrize("specials", VOCABULARIES.values(), ids=VOCABULARIES)
@settings(max_examples=n_examples(60), deadline=None)
@given(data=st.data())
def test_of_a_rendered_text_only_the_templates_markup_is_special(specials, adds_space, data):
    names = [*specials] or ["<x>"]
    parts = st.one_of(st.sampled_from(names), st.text("ab<|>[/ \n\\ꔀꔁ", max_size=6))
    contents = data.draw(st.lists(st.lists(parts, max_size=5).map("".join), min_size=1, max_size=4))
    texts = tokenizer(specials, adds_space=adds_space)
    letters = Letters(specials, adds_space=adds_space)
    guard = LiteralTextGuard(texts.specials, contents)
    markup = [name for name in names if name in texts.specials.by_name]
    rendered = "".join(f"{''.join(markup)}.{guard.hide(content)}." for content in contents)
    tokens = texts.rendered(rendered, guard)
    plain = [name for name in specials if name not in texts.specials.by_name]
    assert [n for n in letters.control(tokens) if n not in plain] == markup * len(contents)
    space = " " * adds_space
    expected = "".join(
        f"{''.join(markup)}{space if markup or not i else ''}.{content}."
        for i, content in enumerate(contents)
    )
    if not plain:  # llama.cpp puts a space behind those, too
        assert letters.text(tokens) == expected


@pytest.mark.parametrize("adds_space", [False, True])
@pytest.mark.parametrize(
    "text", ["a<think>b</think>", "<think>", "<<think>>", "x</think><think>y", ""]
)
def test_a_user_defined_name_in_a_text_is_spelled_out(text, adds_space):
    letters = Letters(IM, adds_space=adds_space)
    tokens = tokenizer(IM, adds_space=adds_space).plain(text)
    assert not letters.control(tokens)
    assert letters.text(tokens) == (adds_space * " " + text if text else "")


def test_ordinary_user_defined_tokens_stay_tokens():
    specials = {"<table>": USER_DEFINED, "  ": USER_DEFINED, "<think>": USER_DEFINED}
    letters = Letters(specials)
    texts = TextTokenizer(letters, SpecialTokens.of(letters, "{{ x }}"))
    assert letters.control(texts.plain("<table>  <think>")) == ["<table>", "  "]


def test_a_name_that_content_and_markup_make_together_is_no_token():
    texts = tokenizer(IM)
    content = "a<|im_"
    guard = LiteralTextGuard(texts.specials, [content])
    letters = Letters(IM)
    assert not letters.control(texts.rendered(guard.hide(content) + "end|>", guard))
    for contents in (["<|im_", "end|>"], ["<", "|im_end|>"]):  # parts that a template joins
        guard = LiteralTextGuard(texts.specials, contents)
        assert not letters.control(texts.rendered("".join(guard.hide(contents)), guard))


def test_white_space_that_a_token_swallows_is_the_templates_only():
    specials = {"<|user|>": CONTROL | RSTRIP, "<|end|>": CONTROL | LSTRIP}
    texts, letters = tokenizer(specials), Letters(specials)
    guard = LiteralTextGuard(texts.specials, ["  a\n"])
    tokens = texts.rendered(f"<|user|>\n{guard.hide('  a' + chr(10))}  <|end|>\n", guard)
    assert letters.text(tokens) == "<|user|>  a\n<|end|>\n"


@pytest.mark.parametrize("value", ["<a", {"<k": ["<v", 1, None, True]}, [["<"]], 5, None, "plain"])
def test_what_is_hidden_comes_back_even_where_a_template_writes_it_as_json_or_as_python(value):
    guard = LiteralTextGuard(tokenizer(IM).specials, value)
    hidden = guard.hide(value)
    assert "<" not in json.dumps(hidden)
    assert json.loads(guard.restore(json.dumps(hidden, ensure_ascii=False))) == value
    assert json.loads(guard.restore(json.dumps(hidden))) == value  # in ASCII
    assert guard.restore(repr(hidden)) == repr(value)


def test_letters_of_the_text_itself_never_stand_in():
    letters = "".join(map(chr, range(0xA500, 0xA60C))) + r"\ua000 \ua001"
    text = f"<{letters}>"
    guard = LiteralTextGuard(tokenizer(IM).specials, text)
    assert guard.restore(guard.hide(text)) == text
    assert "<" not in guard.hide(text)


def test_a_text_with_every_letter_that_could_stand_in_is_refused():
    ranges = [(0xA000, 0xA60C), (0xAC00, 0xD7A4), (0x20000, 0x2A6D6)]
    text = "<" + "".join(chr(c) for first, last in ranges for c in range(first, last))
    with pytest.raises(InvalidParameter, match="Hangul"):
        LiteralTextGuard(tokenizer(IM).specials, text)


def test_arguments_stay_json_and_as_they_were_sent_where_nothing_is_hidden():
    specials = tokenizer(VOCABULARIES["brackets"]).specials
    assert LiteralTextGuard(specials, ["["]).hide_json('{"a" :[1, 2]}') == '{"a" :[1, 2]}'
    guard = LiteralTextGuard(specials, ["[INST]"])
    hidden = guard.hide_json(r'{"a": ["\u005bINST]"]}')
    assert json.loads(hidden)["a"][0] != "[INST]"
    assert json.loads(guard.restore(hidden)) == {"a": ["[INST]"]}
    assert guard.restore(guard.hide_json("no [json")) == "no [json"


# --- with real vocabularies


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|im_start|>assistant\n"
)
ORDINARY = [
    "hi", "\n\nhello", "  two  spaces ", "日本語", "1 < 2, [x] | y", "<b>bold</b>", "\tdef f():\n\t\tpass",
    "don't", "a\r\nb", "émigré", "{\"a\": [1]}", "https://x.org/?q=<>", "ꔀ \\ua500", "", "🙂🙂",
]  # fmt: skip


@pytest.fixture(scope="module", params=["smollm", "stories"])
def llama(request: pytest.FixtureRequest) -> Iterator[Llama]:
    path: Path = request.getfixturevalue(request.param)
    llama = Llama(EngineConfig(model_id="m", path=str(path), n_ctx=64, n_seq=1))
    yield llama
    llama.close()


@pytest.fixture(scope="module")
def builder(llama: Llama) -> Iterator[PromptBuilder]:
    ends = {llama.text_of(token) for token in (llama.bos, llama.eos) if token is not None}
    template = CHATML if "<|im_end|>" in ends else LLAMA2
    builder = PromptBuilder(llama, template, 5.0, "m")
    yield builder
    builder.close()


LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content.strip() }} [/INST]"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def test_ordinary_dialogues_give_the_tokens_that_llama_cpp_gives(llama, builder):
    for i in range(len(ORDINARY)):
        said = [ORDINARY[(i + k) % len(ORDINARY)] for k in range(5)]
        roles = ["system", "user", "assistant", "user", "assistant"]
        messages = [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]
        text = builder._render(Prompt(messages=messages), None)
        expected = llama.tokenize(text, add_special=True)
        assert builder.build(Prompt(messages=messages), None).tokens == expected, messages


def test_ordinary_texts_give_the_tokens_that_llama_cpp_gives(llama, builder):
    for text in ORDINARY[:-2]:
        assert (
            builder.tokens(Prompt(text=text)) == llama.tokenize(text, add_special=True) or not text
        )


def special_names(llama: Llama) -> list[str]:
    return [llama.text_of(t) for t in range(llama.n_vocab) if llama.attributes(t) & CONTROL]


def test_no_special_token_of_the_vocabulary_comes_from_a_text(llama, builder):
    names = special_names(llama)
    control = {t for t in range(llama.n_vocab) if llama.attributes(t) & CONTROL}
    said = " ".join(names)
    call = {"id": "call_1", "type": "function",
            "function": {"name": "f", "arguments": json.dumps({"a": said})}}  # fmt: skip
    harmless = {**call, "function": {"name": "f", "arguments": json.dumps({"a": "x"})}}
    tools = ToolUse(tools=[Tool(name="f", description=said, parameters={
        "type": "object", "properties": {said: {"type": "string", "enum": [said]}}})])  # fmt: skip
    plain = ToolUse(tools=[Tool(name="f", description="x", parameters={
        "type": "object", "properties": {"x": {"type": "string", "enum": ["x"]}}})])  # fmt: skip

    def count(text: str, one_call: dict[str, Any], use: ToolUse) -> int:
        messages = [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            {"role": "assistant", "content": text, "tool_calls": [one_call]},
            {"role": "tool", "content": text, "tool_call_id": "call_1"},
            {"role": "assistant", "content": text, "reasoning_content": text},
        ]
        prompt = Prompt(messages=messages, prefill=text, variables={"documents": [text]})
        return sum(token in control for token in builder.build(prompt, use).tokens)

    assert count(said, call, tools) == count("x", harmless, plain) > 0
    text = builder.build(Prompt(messages=[{"role": "user", "content": said}]), None).tokens
    assert said in llama.detokenize(list(text)).replace("\x00", "")


def test_a_raw_prompt_has_special_tokens_only_where_it_says_so(llama, builder):
    name = special_names(llama)[-1]
    text = f"a{name}b"
    literal = builder.tokens(Prompt(text=text))
    parsed = builder.tokens(Prompt(text=text, parse_special=True))
    token = llama.tokens_of(name, add_special=False, parse_special=True)[-1]
    assert token not in literal[1:] and token in parsed[1:]
    assert text in llama.detokenize(list(literal))
