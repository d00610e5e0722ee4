"""Answers with grammars, calls and reasoning are the same with drafts, right and wrong ones, as without."""

from __future__ import annotations

import itertools
import json
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest

from edgeagent.engine.batching.prompt_lookup import Draft
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.speculation import Speculation
from edgeagent.engine.batching.time_slices import STEP_S
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import Form
from edgeagent.types.tools import Tool, ToolUse
from tests.engine.batching.test_speculation import FreeSteps
from tests.engine.scripted import Stage, Told

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"
)
HERMES = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
THINKING = HERMES + "{{ '<think>\\n' if enable_thinking is not defined else '' }}"
ORDER = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 40},
        "items": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 5},
        "urgent": {"type": "boolean"},
        "channel": {"enum": ["telephone", "electronic_mail"]},
    },
    "required": ["customer", "items", "urgent", "channel"],
    "additionalProperties": False,
}
LAMP = Tool(
    name="lamp",
    parameters={
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "room": {"type": "string", "maxLength": 12}},
        "required": ["on"],
    },
)
FORM = Form(kind="json_schema", text=json.dumps(ORDER), is_strict=True)
WHOLE = (
    '{"customer": "Ellen Marsh of 14 Harbour Street", "items": ["paper filters", "brass valve"], '
    '"urgent": false, "channel": "telephone"}'
)
CALL = '<tool_call>\n{"name": "lamp", "arguments": {"on": true, "room": "kitchen"}}\n</tool_call>'
TOOLS = ToolUse(tools=[LAMP])
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "text": (TURNS, "Two boxes of paper filters, one brass valve and a lid.", {}),
    "text to a stop string": (TURNS, "Two boxes of paper filters, and a lid.", {"stop": ["filt"]}),
    "logprobs": (TURNS, "Two boxes of filters, one valve.", {"logprobs": 2}),
    "schema with logprobs": (TURNS, WHOLE, {"form": FORM, "logprobs": 1}),
    "schema that is closed": (TURNS, WHOLE, {"form": FORM, "max_new": 24}),
    "script that leaves the schema": (TURNS, WHOLE.replace("false", '"no"'), {"form": FORM}),
    "call behind text": (HERMES, f"Let me see.\n\n{CALL}", {"tools": TOOLS}),
    "two calls": (HERMES, f"{CALL}\n{CALL.replace('kitchen', 'hall')}", {"tools": TOOLS}),
    "call cut": (HERMES, CALL, {"tools": TOOLS, "max_new": 16}),
    "reasoning, then a schema": (THINKING, f"I see.\n</think>\n\n{WHOLE}", {"form": FORM}),
}


class Oracle:
    """Drafts what a whole answer goes on with, but for one token in `rarity`."""

    def __init__(self) -> None:
        self.whole = array("i")
        self.rarity = 5

    def __call__(self, seq: Sequence, n_max: int) -> Draft | None:
        text = seq.tokens
        n = len(text)
        if self.whole[:n] != text:
            return None
        said = [
            token if zlib.crc32(b"%d" % i) % self.rarity else 7
            for i, token in enumerate(self.whole[n : n + n_max], n)
        ]
        return Draft(array("i", said), 9) if said else None


@pytest.fixture(scope="module")
def llama(shallow: Any) -> Iterator[Llama]:
    loaded = Llama(EngineConfig(model_id="shallow", path=str(shallow), n_ctx=4096, n_seq=1))
    yield loaded
    loaded.close()


def standing() -> float:
    """A clock by which draws take no time. Where one takes longer than its step has, the rest of the draft is
    dropped: a busy machine would decide how many drafted tokens are drawn."""
    return 0.0


@pytest.fixture
def stages(
    llama: Llama, name: str, clock: Callable[[], float]
) -> Iterator[tuple[Stage, Stage, Speculation]]:
    """One that drafts nothing, and one that drafts. New for each case: how often drafts were right so far
    decides about later ones."""
    template = CASES[name][0]
    speculation = Speculation(True, drafter=Oracle(), costs=FreeSteps())
    plain, drafting = Stage(llama, template), Stage(llama, template, speculation, clock)
    drafting.runner.max_outputs = 24
    yield plain, drafting, speculation
    plain.close()
    drafting.close()


def facts(told: Told) -> dict[str, Any]:
    assert told.usage is not None
    return {
        "text": told.text, "reasoning": told.reasoning, "calls": told.calls, "finish": told.finish,
        "error": told.error, "n": told.usage.n_generated, "n_reasoning": told.usage.n_reasoning,
        "logprobs": told.logprobs,
    }  # fmt: skip


def same_with_drafts(stages: tuple[Stage, Stage, Speculation], name: str) -> dict[str, Any]:
    """What both answer."""
    _, script, options = CASES[name]
    plain, drafting, speculation = stages
    wanted = facts(plain.ask(script, **options))
    oracle = speculation.drafter
    assert isinstance(oracle, Oracle)
    oracle.whole = plain.tokens[:]
    assert facts(drafting.ask(script, **options)) == wanted
    assert drafting.tokens == plain.tokens
    assert wanted["error"] is None
    return wanted


@pytest.mark.parametrize("clock", [standing], ids=["no hurry"])
@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_what_it_is_without_drafts(stages, name):
    wanted = same_with_drafts(stages, name)
    _, drafting, speculation = stages
    n_accepted = speculation.n_accepted
    assert speculation.n_drafted > n_accepted > 0
    assert len(drafting.runner.steps) <= wanted["n"] - n_accepted + 1
    if "form" in CASES[name][2] and wanted["finish"] == "stop":
        jsonschema.validate(json.loads(wanted["text"]), ORDER)


@pytest.mark.parametrize("clock", [itertools.count(0.0, STEP_S).__next__], ids=["hurry"])
@pytest.mark.parametrize("name", ["schema that is closed", "call cut"])
def test_an_answer_whose_step_has_no_time_for_a_draw_drops_the_drafts(stages, name):
    same_with_drafts(stages, name)
    assert stages[2].n_drafted > 0
