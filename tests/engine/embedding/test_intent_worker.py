"""A real worker on the shipped sentence encoder with a classifier of intents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.engine.client import EngineClient
from edgeagent.engine.intents.intent_classifier import IntentClassifier
from edgeagent.errors import InvalidParameter, ModelUnusable
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.features import encoder, vectors
from edgeagent.types.answer import TokenChunk
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Candidate, IntentQuestion, WholeCall
from edgeagent.types.prompt import Prompt
from edgeagent.types.unary_requests import CountSpec, EmbedSpec, TemplateSpec
from tests.conftest import ROOT

pytestmark = pytest.mark.process
TEXTS = {
    "departure": "when does the ferry leave",
    "luggage": "how many suitcases may i take",
    "oos": "tell me a joke about penguins",
}
SHIPPED = ROOT / "models" / "edge-encoder" / "edge-encoder.gguf"


@pytest.fixture(scope="module")
async def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nearest of three texts wins."""
    async with encoder(SHIPPED) as client:
        found = await vectors(client, list(TEXTS.values()))
    path = tmp_path_factory.mktemp("ferry") / "ferry.gguf"
    rows = np.pad(20 * found, ((0, 0), (0, 1)))
    EncoderTrunk.read(SHIPPED).write(path, list(TEXTS), rows, name="ferry", description="")
    return path


@pytest.fixture(scope="module")
async def worker(model: Path) -> AsyncIterator[EngineClient]:
    assert inspect(model).task == "embed"
    config = EngineConfig(
        model_id="ferry",
        path=str(model),
        task="embed",
        n_ctx=128,
        n_seq=8,
        n_prefixes=0,
        n_threads=1,
    )
    client = await EngineClient.start(config, timeout_s=60)
    yield client
    await client.close()


def question(text: str, **options: Any) -> IntentQuestion:
    own: dict[str, Any] = {
        "text": text, "candidates": [Candidate("departure"), Candidate("luggage")],
        "out_of_scope": "oos", "threshold": 0.5, "may_abstain": True, "otherwise": "none of these",
    }  # fmt: skip
    return IntentQuestion(**(own | options))


async def answered(worker: EngineClient, asked: IntentQuestion, n: int = 1) -> list[TokenChunk]:
    prompt = Prompt(messages=[{"role": "user", "content": asked.text}])
    spec = GenerateSpec(prompts=[prompt], intent_question=asked, n=n)
    return [chunk async for chunk in worker.generate(spec)]


async def test_the_intent_is_the_one_that_the_classifier_finds(worker: EngineClient, model: Path):
    asked = [
        question(TEXTS["luggage"]),
        question("what time is the ship leaving"),
        question(TEXTS["oos"]),
    ]
    luggage, departure, outside = await asyncio.gather(*(answered(worker, one) for one in asked))
    for (chunk,), intent in ((luggage, "luggage"), (departure, "departure")):
        assert [(call.name, call.arguments) for call in chunk.calls] == [(intent, "{}")]
        assert chunk.finish == "tool_calls" and chunk.confidence is not None
        assert chunk.confidence.intent == intent and chunk.confidence.probability > 0.5
    (chunk,) = outside
    assert (chunk.text, chunk.finish, chunk.calls) == ("none of these", "stop", [])
    assert chunk.confidence is not None and chunk.confidence.is_abstained
    assert chunk.usage is not None and chunk.usage.n_prompt > 8
    assert worker.n_open == 0


async def test_what_needs_no_model_and_several_answers_are_the_same_as_with_an_assistant(
    worker: EngineClient,
):
    (said,) = await answered(worker, question("hello", reply="as you wish"))
    assert (said.text, said.finish) == ("as you wish", "stop")
    (called,) = await answered(
        worker, question("hello", calls=[WholeCall("lights", '{"on":true}')])
    )
    assert [(c.name, c.arguments) for c in called.calls] == [("lights", '{"on":true}')]
    three = await answered(worker, question(TEXTS["luggage"]), n=3)
    assert sorted(chunk.index for chunk in three) == [0, 1, 2]
    assert {chunk.calls[0].name for chunk in three} == {"luggage"}
    long = question("how many suitcases may i take " * 4000)
    ((first),) = await answered(worker, long)
    assert (
        first.calls[0].name == "luggage" and first.usage is not None and first.usage.n_prompt == 128
    )


async def test_other_questions_are_answered_or_refused(worker: EngineClient):
    assert (await worker.ask(TemplateSpec())).can_chat
    prompt = Prompt(messages=[{"role": "user", "content": "when does it leave"}])
    assert await worker.ask(CountSpec(request=GenerateSpec(prompts=[prompt]))) == 6
    with pytest.raises(InvalidParameter, match="chooses among its intents"):
        await worker.ask(EmbedSpec(inputs=["a"]))
    with pytest.raises(InvalidParameter, match="chooses among its intents"):
        _ = [chunk async for chunk in worker.generate(GenerateSpec(prompts=[Prompt(text="a")]))]
    with pytest.raises(ModelUnusable, match="no intent 'refund'"):
        await answered(worker, question("a", candidates=[Candidate("refund")]))


def test_a_classifier_that_is_not_whole_is_refused(model: Path, tmp_path: Path):
    assert IntentClassifier.read(SHIPPED, "encoder") is None
    found = IntentClassifier.read(model, "ferry")
    assert found is not None and found.weight.shape == (3, 384)
    scores = found.scores(found.weight[1] / 20, question(""))
    assert scores.argmax() == 1 and len(scores) == 3
    trunk = EncoderTrunk.read(SHIPPED)
    twice = tmp_path / "twice.gguf"
    trunk.write(twice, ["a", "a"], np.zeros((2, 385), np.float32), name="", description="")
    with pytest.raises(ModelUnusable, match="2 labels for rows"):
        IntentClassifier.read(twice, "twice")
