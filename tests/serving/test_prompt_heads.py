"""Which heads of prompts are worth a file: text, repetition, age."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.serving.prompt_heads import MAX_HEAD_BYTES, MAX_SEEN, RETRY_S, Sightings, head_of
from edgeagent.settings.store import PrefixSettings
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.tools import Tool, ToolUse

SYSTEM = {"role": "system", "content": "You are a lighthouse keeper and answer in verse."}
TOOLS = ToolUse(tools=[Tool(name="ring", description="Ring the bell of the lighthouse")])


def chat(*messages: dict[str, Any], text: str = "Hello", **more: Any) -> GenerateSpec:
    turn = {"role": "user", "content": text}
    prompt = Prompt(messages=[*messages, turn], **more.pop("prompt", {}))
    return GenerateSpec(prompts=[prompt], scope="key_1", **more)


def head(spec: GenerateSpec, model: str = "m") -> Any:
    return head_of(model, spec, 16)


def test_a_head_is_what_comes_before_the_turns_and_nothing_of_them():
    one = head(chat(SYSTEM))
    assert one == head(chat(SYSTEM, text="Goodbye", max_tokens=3)) is not None
    other = {"role": "developer", "content": "Rhyme."}
    different = [
        head(chat(SYSTEM, tools=TOOLS)), head(chat(SYSTEM, other)), head(chat(SYSTEM), "n"),
        head(chat({**SYSTEM, "content": SYSTEM["content"] + "!"})),
        head(chat(SYSTEM, prompt={"variables": {"enable_thinking": False}})),
        head(chat(tools=TOOLS)),
    ]  # fmt: skip
    assert None not in different and len({one, *different}) == 1 + len(different)


@pytest.mark.parametrize(
    "spec",
    [
        chat(),
        chat({"role": "system", "content": "Hi"}),
        chat({"role": "system", "content": "x" * (MAX_HEAD_BYTES + 1)}),
        chat(SYSTEM, adapter="rhymes"),
        chat(SYSTEM, prompt={"before": [1, 2]}),
        GenerateSpec(prompts=[Prompt(text="Once upon a time " * 20)]),
        GenerateSpec(prompts=[Prompt(messages=[SYSTEM]), Prompt(messages=[SYSTEM])]),
    ],
)
def test_nothing_is_kept_without_a_head_of_some_length_or_with_an_adapter(spec: GenerateSpec):
    # The second is shorter than the 64 tokens that the settings ask for here.
    assert head_of("m", spec, 64) is None


def sightings(**settings: Any) -> Sightings:
    return Sightings(PrefixSettings(**({"min_uses": 3, "min_age_s": 60.0} | settings)))


def test_a_head_is_due_once_it_came_often_and_for_long_enough():
    seen, one = sightings(), head(chat(SYSTEM))
    assert [seen.add(one, "ann", at) for at in (0, 1, 2, 59, 60, 61)] == [False] * 4 + [True] * 2
    seen.postpone(one, 61)
    assert not seen.add(one, "ann", 61 + RETRY_S - 1) and seen.add(one, "ann", 61 + RETRY_S)
    # A prompt that tells the minute is another one before it is old enough.
    clocks = [head(chat({**SYSTEM, "content": f"It is 10:{n:02}. Be brief."})) for n in range(30)]
    assert not any(
        seen.add(c, "ann", 60 * n + s) for n, c in enumerate(clocks) for s in (0, 20, 40)
    )


def test_a_deletion_begins_the_count_anew_but_not_the_wait_for_the_next_write():
    seen, one = sightings(min_uses=1, min_age_s=0.0), head(chat(SYSTEM))
    assert seen.add(one, "ann", 0)
    seen.postpone(one, 0)
    seen.forget("ann")
    assert not seen.add(one, "ann", 10) and seen.add(one, "ann", RETRY_S)
    fussy = sightings(min_uses=2, min_age_s=0.0)
    fussy.add(one, "ann", 0)
    fussy.forget("bob")
    assert fussy.add(one, "ann", 1)
    fussy.forget("ann")
    assert not fussy.add(one, "ann", 2)


def test_no_more_than_a_bound_is_counted():
    seen, one = sightings(min_uses=2, min_age_s=0.0), head(chat(SYSTEM))
    seen.add(one, "ann", 0)
    for n in range(MAX_SEEN):
        seen.add(one._replace(digest=str(n).encode()), "eve", 1)
    assert not seen.add(one, "ann", 2)
