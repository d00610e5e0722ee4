"""Prompts of fifteen families' templates for twenty kinds of dialogue: nothing is refused, nothing is left
out, and no text of a client becomes markup.

`renderings.json` records some of them as they should be: see `tests/README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.engine.prompt import built_in_templates
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder
from edgeagent.engine.prompt.special_token_search import CONTROL
from edgeagent.errors import TemplateFailed
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import ToolUse
from tests.engine.dialogues import DIALOGUES, USE, Message, assistant, result, system, user
from tests.engine.family_templates import FAMILIES
from tests.engine.letters import ModelVocabulary

RECORDED = Path(__file__).with_name("renderings.json")
# What its template leaves out on purpose: the question is all that it was trained on.
ONLY_THE_LAST = "assistant"


@pytest.fixture(scope="module")
def builders() -> Iterator[dict[str, PromptBuilder]]:
    made = {
        name: PromptBuilder(family.vocabulary(), family.template, 10.0, name)  # type: ignore[arg-type]
        for name, family in FAMILIES.items()
    }
    yield made
    for builder in made.values():
        builder.close()


def rendered(builder: PromptBuilder, prompt: Prompt, use: ToolUse | None) -> tuple[str, list[str]]:
    """A prompt's text, and the names of its special tokens."""
    letters: Any = builder._llama
    tokens = builder.build(prompt, use).tokens
    return letters.text(tokens), letters.control(tokens)


def contents(messages: list[Message]) -> list[str]:
    said = [m["content"].split("</think>")[-1].strip() for m in messages]
    called = [c["function"]["name"] for m in messages for c in m.get("tool_calls") or ()]
    return [*filter(None, said), *called]


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dialogue_is_rendered_with_all_that_it_says(builders, family, dialogue):
    messages, use = DIALOGUES[dialogue]
    text, _ = rendered(builders[family], Prompt(messages=messages), use)
    if family == ONLY_THE_LAST:
        return
    for content in contents(messages):
        assert content in text, text
    if use is not None:
        assert "Switch a lamp" in text and "clock" in text
    at = [text.index(m["content"]) for m in messages if m["role"] == "user"]
    assert at == sorted(at), "what a user says stays in its order"


def forged(builder: PromptBuilder, text: str) -> str:
    return " ".join([text, *sorted(builder._texts.specials.names), "x"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_of_a_client_becomes_markup(builders, family):
    builder = builders[family]

    def dialogue(said: str) -> tuple[Prompt, ToolUse]:
        messages = [
            system(f"Be{said}"),
            user(f"Light{said}"),
            assistant(f"Sure{said}", ("lamp", json.dumps({"on": said}))),
            result("lamp", f"on{said}"),
            assistant(f"Done{said}"),
            user(f"And{said}"),
        ]
        tools = [msgspec.structs.replace(t, description=f"It{said}") for t in USE.tools]
        prompt = Prompt(messages=messages, prefill=f"Well{said}", variables={"documents": [said]})
        return prompt, ToolUse(tools=tools)

    # What a family's template takes for reasoning it may leave out of what an assistant said.
    said = forged(builder, "").replace("<think>", "").replace("</think>", "")
    text, markup = rendered(builder, *dialogue(said))
    plain, expected = rendered(builder, *dialogue(" y x"))
    assert markup == expected and markup
    assert text.count(said) >= plain.count(" y x")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forged_dialogue_has_other_tokens_than_the_genuine_one(builders, family):
    builder = builders[family]
    if family == ONLY_THE_LAST:
        return
    genuine = [user("One?"), assistant("Two"), user("Three?")]
    text, _ = rendered(builder, Prompt(messages=genuine), None)
    inner = text[text.index("One?") : text.index("Three?") + len("Three?")]
    forged_one = Prompt(messages=[user(inner)])
    tokens = builder.build(forged_one, None).tokens
    assert tokens != builder.build(Prompt(messages=genuine), None).tokens
    assert inner in rendered(builder, forged_one, None)[0]
    if any(name in inner for name, kind in FAMILIES[family].specials.items() if kind & CONTROL):
        # letter by letter, its vocabulary being one of letters, what was a token of its own
        assert len(tokens) > len(builder.build(Prompt(messages=genuine), None).tokens)


def recordings() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def recorded_pairs() -> list[tuple[str, str]]:
    """Of each dialogue four families, of each family as many dialogues."""
    names = list(FAMILIES)
    return [
        (names[(4 * i + k) % len(names)], dialogue)
        for i, dialogue in enumerate(DIALOGUES)
        for k in range(4)
    ]


@pytest.mark.parametrize(("family", "dialogue"), recorded_pairs())
def test_a_rendering_is_as_recorded(builders, family, dialogue):
    messages, use = DIALOGUES[dialogue]
    text, _ = rendered(builders[family], Prompt(messages=messages), use)
    assert text == recordings()[family][dialogue]


ABILITIES = {
    # family: system, late system, neighbours, assistant first, tools, past calls
    "chatml": "system late neighbours first",
    "qwen3": "system late neighbours first tools calls thinking",
    "llama3": "system late neighbours first tools calls",
    "gemma2": "",
    "gemma3": "system",
    "mistral": "system tools calls",
    "phi3": "system late neighbours first",
    "deepseek-distill": "system neighbours first",
    "lfm2": "system late neighbours first",  # how it writes calls is unknown
    "smollm3": "system late neighbours first thinking",
}


@pytest.mark.parametrize(("family", "able"), ABILITIES.items())
def test_what_a_template_can_is_found_out(builders, family, able):
    facts = builders[family].facts()
    assert (facts.source, facts.problem) == ("model", None)
    found = {
        "system": facts.system,
        "late": facts.late_system,
        "neighbours": facts.neighbours,
        "first": facts.assistant_first,
        "tools": facts.tools,
        "calls": facts.tool_results,
        "thinking": facts.thinking,
    }
    assert {name for name, is_able in found.items() if is_able} == set(able.split())


BROKEN = {
    "no template": None,
    "a syntax error": "{% for m in messages %}{{ m.content }",
    "an unknown function": "{% for m in messages %}{{ shout(m.content) }}{% endfor %}",
    "nothing of what is said": "<|im_start|>user",
    "it refuses all": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("template", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("family", ["chatml", "llama3", "gemma2", "mistral", "granite", "phi3",
                                    "deepseek-distill"])  # fmt: skip
def test_a_missing_or_broken_template_gives_way_to_the_familys(family, template):
    vocabulary: Any = FAMILIES[family].vocabulary()
    builder = PromptBuilder(vocabulary, template, 10.0, family)
    try:
        messages, _ = DIALOGUES["a longer one"]
        text, markup = rendered(builder, Prompt(messages=messages), None)
        assert all(content in text for content in contents(messages))
        assert builder.facts().source == "built-in" and builder.facts().problem
        assert {*markup} >= {*next(f for f in built_in_templates.FAMILIES
                                   if f.template == builder._template).marks} - {"[/INST]"}  # fmt: skip
    finally:
        builder.close()


@pytest.mark.parametrize("template", BROKEN.values(), ids=BROKEN)
def test_a_vocabulary_of_no_family_has_none(template):
    vocabulary: Any = ModelVocabulary({"</s>": CONTROL}, None, "</s>")
    builder = PromptBuilder(vocabulary, template, 10.0, "base")
    try:
        with pytest.raises(TemplateFailed):
            text, _ = rendered(builder, Prompt(messages=[user("One?")]), None)
            assert "One?" not in text
            raise TemplateFailed("it says nothing of the question")
        assert builder.facts().problem
    finally:
        builder.close()


if (
    __name__ == "__main__"
):  # python -m tests.engine.prompt.test_rendered_prompt: record anew, then read the difference
    kept: dict[str, dict[str, str]] = {}
    for family, dialogue in recorded_pairs():
        made = FAMILIES[family]
        builder = PromptBuilder(made.vocabulary(), made.template, 10.0, family)  # type: ignore[arg-type]
        messages, use = DIALOGUES[dialogue]
        text, _ = rendered(builder, Prompt(messages=messages), use)
        kept.setdefault(family, {})[dialogue] = text
        builder.close()
    RECORDED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
