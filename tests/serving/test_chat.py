"""The way of a chat, step by step, without HTTP: which model is asked what, and what is logged."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.errors import (
    ContextLengthExceeded,
    EngineDied,
    InvalidParameter,
    ModelNotFound,
    Unavailable,
)
from edgeagent.serving.answer import Answer
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.types.generation import Form
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.tools import Tool, ToolUse
from tests.serving.fakes import ORIGIN, USAGE, FakeEngines, FakeModels, chooser, said, sure

ASSISTANT = Assistant(domains={"home": ("light", "door")}, tools={}, thresholds={"all": 0.5})
QUESTION = {"role": "user", "content": "switch on the light"}
RESULT = [
    {"role": "assistant", "content": "", "tool_calls": []},
    {"role": "tool", "content": "done", "tool_call_id": "1"},
]


def chat(*messages: dict[str, Any], **fields: Any) -> ChatInput:
    prompt = Prompt(messages=[QUESTION, *messages])
    given: dict[str, Any] = {"model": None, "prompts": [prompt], "sampling": lambda own: own}
    return ChatInput(**(given | fields))


async def text_of(answer: Answer) -> str:
    """The whole text of an answer, which is released."""
    pieces: list[str] = []
    try:
        await answer.begin()
        while chunks := await answer.take():
            pieces += [chunk.text for chunk in chunks]
    finally:
        await answer.release()
    return "".join(pieces)


def service(engines: FakeEngines, models: FakeModels | None = None, **options: Any) -> ChatService:
    models = models or FakeModels({"generate": ["small"], "embed": ["vectors"]})
    return ChatService(engines, chooser(models, **options))  # type: ignore[arg-type]


# ---- 1 and 2: the model and its request


async def test_a_chat_without_a_model_goes_to_the_default_one_with_its_sampling_and_the_scope_of_the_key():
    engines = FakeEngines(small=lambda spec: said("Good day"))
    answer = await service(engines).answer(ORIGIN, chat(max_tokens=5, stop=["x"], priority=-1))
    assert await text_of(answer) == "Good day"
    (spec,) = engines.clients["small"].specs
    assert (spec.scope, spec.max_tokens, spec.stop, spec.priority) == ("key_ann", 5, ["x"], -1)
    assert spec.sampling == Sampling(temperature=0.3)
    assert answer.decision.reason == "default"


async def test_what_a_request_says_of_sampling_is_put_over_the_values_of_the_model():
    engines = FakeEngines(small=lambda spec: said("x"))
    hot = chat(sampling=lambda own: msgspec.structs.replace(own, top_k=3))
    await text_of(await service(engines).answer(ORIGIN, hot))
    assert engines.clients["small"].specs[0].sampling == Sampling(temperature=0.3, top_k=3)


async def test_a_name_and_an_alias_go_to_their_model():
    engines = FakeEngines(big=lambda spec: said("x"))
    models = FakeModels({"generate": ["small", "big"]}, aliases={"gpt-4o": "big"})
    for name in ("big", "gpt-4o"):
        answer = await service(engines, models).answer(ORIGIN, chat(model=name))
        await text_of(answer)
        assert (answer.decision.model_id, answer.decision.reason) == ("big", "named")


@pytest.mark.parametrize(
    ("models", "name", "error"),
    [
        ({"generate": ["small"], "embed": ["vectors"]}, "vectors", InvalidParameter),
        ({"embed": ["vectors"]}, None, Unavailable),
        ({}, "default", Unavailable),
    ],
)
async def test_what_no_model_can_answer_is_refused_before_an_engine_is_leased(models, name, error):
    engines = FakeEngines()
    with pytest.raises(error):
        await service(engines, FakeModels(models)).answer(ORIGIN, chat(model=name))
    assert not engines.rows


# ---- 3 and 4: assistant models and escalation

PAIR = FakeModels(
    {"generate": ["assistant", "big"]},
    assistants={"assistant": ASSISTANT},
    larger={"assistant": "big"},
)


def pair(confidence: Any) -> FakeEngines:
    return FakeEngines(assistant=lambda spec: [confidence], big=lambda spec: said("larger"))


async def routed(engines: FakeEngines, given: ChatInput, **options: Any) -> tuple[str, str]:
    answer = await service(engines, PAIR, **options).answer(ORIGIN, given)
    await answer.release()
    return answer.decision.model_id, answer.decision.reason


async def test_an_assistant_model_that_is_sure_answers_with_a_question_about_intents():
    engines = pair(sure(0.9))
    given = chat()
    answer = await service(engines, PAIR).answer(ORIGIN, given)
    assert (answer.decision.model_id, answer.decision.reason) == ("assistant", "default")
    question = answer.spec.intent_question
    assert question is not None and [c.name for c in question.candidates] == ["light", "door"]
    (consulted,) = engines.clients["assistant"].specs
    assert consulted.max_tokens == 1, "only how sure it is"
    assert engines.clients["assistant"].generations[0].is_cancelled and not engines.n_leased
    await answer.release()


async def test_one_that_abstains_hands_over_with_its_confidence():
    answer = await service(pair(sure(0.1, is_abstained=True)), PAIR).answer(ORIGIN, chat())
    assert (answer.decision.model_id, answer.decision.reason) == ("big", "escalated")
    assert answer.decision.confidence is not None and answer.decision.confidence.probability == 0.1
    assert answer.spec.intent_question is None
    assert await text_of(answer) == "larger"


@pytest.mark.parametrize(
    "given",
    [
        chat(form=Form(kind="json_schema", text="{}")),
        chat(logprobs=0),
        chat(tools=lambda has_own: ToolUse(tools=[Tool(name="sing")])),
        chat(*RESULT),
    ],
    ids=["a form", "log-probabilities", "a tool of the client's", "the result of a call"],
)
async def test_what_an_assistant_model_does_not_do_is_the_larger_ones(given):
    engines = pair(sure(0.9))
    assert await routed(engines, given) == ("big", "escalated")
    assert not engines.clients["assistant"].specs, "it is not asked"


async def test_a_question_that_does_not_fit_into_the_assistant_is_the_larger_ones():
    engines = pair(ContextLengthExceeded("Too long."))
    assert await routed(engines, chat()) == ("big", "escalated")


@pytest.mark.parametrize(
    ("metadata", "may_escalate", "expected"),
    [
        ({"escalate": "false"}, True, ("assistant", "default")),
        ({}, False, ("assistant", "default")),
        ({"escalate": "true"}, False, ("big", "escalated")),
    ],
)
async def test_metadata_and_settings_say_whether_a_larger_model_may_answer(
    metadata, may_escalate, expected
):
    engines = pair(sure(0.1, is_abstained=True))
    given = chat(metadata=metadata)
    assert await routed(engines, given, escalate=may_escalate) == expected


async def test_a_model_that_the_client_names_answers_whatever_it_is():
    engines = pair(sure(0.1, is_abstained=True))
    assert await routed(engines, chat(model="assistant")) == ("assistant", "named")
    assert not engines.clients["assistant"].specs


async def test_a_flag_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(InvalidParameter, match=r"metadata\.escalate"):
        await routed(pair(sure(0.9)), chat(metadata={"escalate": "maybe"}))


# ---- 6 to 9: the answer


async def test_a_finished_answer_is_logged_with_its_counts_and_holds_no_lease():
    engines = FakeEngines(small=lambda spec: said("Good day"))
    answer = await service(engines).answer(ORIGIN, chat())
    await text_of(answer)
    await answer.release()
    (row,) = engines.rows
    assert (row.status, row.finish, row.model, row.route) == (200, "stop", "small", "default")
    assert (row.owner, row.key_id, row.endpoint) == ("ann", "key_ann", "/v1/chat/completions")
    assert (row.n_prompt, row.n_cached, row.n_generated) == (7, 3, 2)
    assert (answer.n_tokens, engines.n_leased, engines.answered) == (9, 0, ["small"])


async def test_an_answer_that_its_client_leaves_is_cancelled_and_charged_for_its_chunks():
    engines = FakeEngines(small=lambda spec: [*said("Good day")[:1]])
    answer = await service(engines).answer(ORIGIN, chat())
    await answer.begin()
    await answer.take()
    await answer.release()
    (row,) = engines.rows
    assert (row.status, row.finish, answer.n_tokens) == (499, "cancelled", 1)
    assert engines.clients["small"].generations[0].is_cancelled and not engines.n_leased


async def test_a_worker_that_dies_before_the_first_chunk_is_asked_once_more():
    lives = iter([[EngineDied("Gone.")], said("second life")])
    engines = FakeEngines(small=lambda spec: next(lives))
    assert await text_of(await service(engines).answer(ORIGIN, chat())) == "second life"
    assert len(engines.clients["small"].specs) == 2 and not engines.n_leased


@pytest.mark.parametrize(
    "lives",
    [
        [[EngineDied("Gone.")], [EngineDied("Gone again.")]],
        [[*said("half")[:1], EngineDied("Gone.")]],
    ],
    ids=["twice", "after the first chunk"],
)
async def test_it_is_not_asked_again_where_it_may_be_the_cause_or_the_client_has_seen_something(
    lives,
):
    left = iter(lives)
    engines = FakeEngines(small=lambda spec: next(left))
    with pytest.raises(EngineDied):
        await text_of(await service(engines).answer(ORIGIN, chat()))
    assert len(engines.clients["small"].specs) == len(lives) and engines.rows[0].status == 499


async def test_a_name_that_only_its_client_knows_is_not_logged():
    engines = FakeEngines()
    answer = await service(engines).answer(ORIGIN, chat(model="my-secret-project"))
    with pytest.raises(ModelNotFound):
        await text_of(answer)
    assert engines.rows[0].model == "unknown"


# ---- texts to continue


async def test_a_text_is_continued_by_the_larger_model_where_the_default_is_an_assistant():
    engines = pair(sure(0.9))
    text = chat(prompts=[Prompt(text="Once"), Prompt(tokens=[104, 105])])
    answer = service(engines, PAIR).complete(ORIGIN, text, echoes=True)
    assert answer.decision.model_id == "big"
    await answer.begin()
    assert answer.prompt_texts == ["Once", "hi"]
    await answer.release()


def test_totals_count_each_prompt_once():
    text = chat(prompts=[Prompt(text="a"), Prompt(text="b")], n=2)
    answer = service(FakeEngines(small=lambda spec: [])).complete(ORIGIN, text)
    answer.usages = dict.fromkeys(range(4), USAGE)
    assert (answer.totals.n_prompt, answer.totals.n_generated) == (14, 8)
