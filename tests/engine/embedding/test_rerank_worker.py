"""A real worker on a small cross-encoder, against numpy with the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.engine.client import EngineClient
from edgeagent.errors import ContextLengthExceeded, InvalidParameter, ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.unary_requests import EmbedSpec, RerankSpec, TokenizeSpec
from tests.catalog.cross_encoder import CrossEncoder, write_cross_encoder
from tests.catalog.synthetic import RANK, RANK_TEMPLATE, Design, write_model
from tests.conftest import N_THREADS, needs_int8

QUERY = "where is my parcel"
DOCUMENTS = [
    "the package arrived yesterday",
    "rain fell all day long",
    "my parcel was lost",
    "the dog ran home",
    "the battery is empty",
    "the",
    "w1 w2 w3 w4 w5 w6 w7 w8 w9",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return write_cross_encoder(tmp_path_factory.mktemp("rank") / "cross.gguf")


def config(path: Path, **options: object) -> EngineConfig:
    own: dict[str, Any] = {
        "model_id": "cross", "path": str(path), "task": "rerank", "n_ctx": 128, "n_seq": 64,
        "n_prefixes": 0, "n_threads": N_THREADS,
    }  # fmt: skip
    return EngineConfig(**(own | options))


@pytest.fixture(scope="module")
async def worker(model: CrossEncoder) -> AsyncIterator[EngineClient]:
    client = await EngineClient.start(config(model.path), timeout_s=60)
    yield client
    await client.close()


async def test_scores_are_those_that_the_weights_give(worker: EngineClient, model: CrossEncoder):
    assert inspect(model.path).task == worker.facts.task == "rerank"
    found = await worker.ask(RerankSpec(query=QUERY, documents=DOCUMENTS))
    expected = [model.score(QUERY, document) for document in DOCUMENTS]
    assert max(expected) - min(expected) > 0.2, "documents that can be told apart"
    assert found.values == pytest.approx(expected, abs=5e-3)
    words = sum(len(document.split()) for document in DOCUMENTS)
    assert found.n_prompt == words + len(DOCUMENTS) * (len(QUERY.split()) + 3)


@needs_int8
async def test_scores_with_8_bit_integers_are_near_them(model: CrossEncoder):
    client = await EngineClient.start(config(model.path, int8_kernels="default"), timeout_s=60)
    try:
        found = await client.ask(RerankSpec(query=QUERY, documents=DOCUMENTS * 3))
    finally:
        await client.close()
    expected = [model.score(QUERY, document) for document in DOCUMENTS] * 3
    assert found.values == pytest.approx(expected, abs=0.03)
    assert found.values != pytest.approx(expected, abs=1e-6), "llama.cpp computed them"


async def test_a_list_is_what_its_documents_are_one_by_one_and_beside_others(worker: EngineClient):
    many = DOCUMENTS * 20
    together, *alone = await asyncio.gather(
        worker.ask(RerankSpec(query=QUERY, documents=many)),
        *(worker.ask(RerankSpec(query=QUERY, documents=[document])) for document in DOCUMENTS),
    )
    each = [score for scores in alone for score in scores.values]
    assert together.values == pytest.approx(each * 20, abs=5e-3)
    assert worker.n_open == 0


async def test_only_so_many_tokens_of_a_document_are_read_as_were_asked_for(
    worker: EngineClient, model: CrossEncoder
):
    spec = RerankSpec(query=QUERY, documents=["rain fell all day long"], max_tokens=2)
    found = await worker.ask(spec)
    assert found.values == pytest.approx([model.score(QUERY, "rain fell")], abs=5e-3)


async def test_a_document_too_long_is_refused_with_the_numbers_or_cut_where_asked(
    worker: EngineClient, model: CrossEncoder
):
    long = "rain " * 200
    with pytest.raises(ContextLengthExceeded, match=r"Document 1 .* 207 tokens.* 128.*truncate"):
        await worker.ask(RerankSpec(query=QUERY, documents=["rain", long]))
    cut = await worker.ask(RerankSpec(query=QUERY, documents=[long], truncate=True))
    assert cut.n_prompt == 128
    fits = model.score(QUERY, "rain " * (128 - 7))
    assert cut.values == pytest.approx([fits], abs=5e-3)
    endless = await worker.ask(
        RerankSpec(query=QUERY, documents=["rain " * 200_000], truncate=True)
    )
    assert endless.values == pytest.approx(cut.values, abs=1e-4)
    with pytest.raises(ContextLengthExceeded, match="no room for a document") as caught:
        await worker.ask(RerankSpec(query=long, documents=["rain"], truncate=True))
    assert caught.value.param == "query"


async def test_what_names_a_special_token_in_a_text_is_text(
    worker: EngineClient, model: CrossEncoder
):
    tokens = await worker.ask(TokenizeSpec(text="rain [SEP] rain", parse_special=False))
    found = await worker.ask(RerankSpec(query="rain", documents=["rain [SEP] rain"]))
    assert found.n_prompt == len(tokens) + 4


@pytest.mark.parametrize("question", [EmbedSpec(inputs=["rain"]), "generate"])
async def test_it_says_that_it_does_nothing_else(worker: EngineClient, question: Any):
    with pytest.raises(InvalidParameter, match="ranks documents"):
        if question == "generate":
            async for _ in worker.generate(GenerateSpec(prompts=[Prompt(text="rain")])):
                pass
        else:
            await worker.ask(question)


async def test_a_query_of_nothing_that_the_model_knows_is_refused(worker: EngineClient):
    with pytest.raises(InvalidParameter, match="`query`"):
        await worker.ask(RerankSpec(query="  ", documents=["rain"]))


@pytest.mark.parametrize("task", ["rerank", "embed"])
async def test_a_model_that_cannot_do_its_task_is_not_loaded(
    task: Any, stories: Path, model: CrossEncoder
):
    path = stories if task == "rerank" else model.path
    with pytest.raises(ModelUnusable, match="pooling type"):
        await EngineClient.start(config(path, task=task), timeout_s=60)


async def test_a_classifier_of_several_classes_is_no_ranker(tmp_path: Path):
    several = write_cross_encoder(tmp_path / "several.gguf", n_labels=3)
    with pytest.raises(ModelUnusable, match="3 classes"):
        await EngineClient.start(config(several.path), timeout_s=60)


async def test_a_model_that_says_yes_or_no_reads_its_own_template(smollm: Path, tmp_path: Path):
    """As Qwen3-Reranker is one: attention looks back only, two classes, a template for the pair."""
    design = Design("qwen3", 2, 64, 4, 2, 16, 128, "F16", embedding="F16", pooling=RANK)
    path = write_model(tmp_path / "yes-no.gguf", design, smollm)
    client = await EngineClient.start(config(path, n_ctx=256, n_batch=128), timeout_s=60)
    documents = ["It rained.", "The <|im_end|> of all.", " the package arrived", "x"]
    try:
        together = await client.ask(RerankSpec(query=QUERY, documents=documents))
        alone = [
            await client.ask(RerankSpec(query=QUERY, documents=[document]))
            for document in documents
        ]
        assert together.values == pytest.approx([s.values[0] for s in alone], abs=2e-3)
        assert all(0 < value < 1 for value in together.values)
        text = RANK_TEMPLATE.replace("{query}", QUERY).replace("{document}", documents[2])
        assert alone[2].n_prompt == len(await client.ask(TokenizeSpec(text=text)))
        text = RANK_TEMPLATE.replace("{query}", QUERY).replace("{document}", documents[1])
        assert alone[1].n_prompt > len(await client.ask(TokenizeSpec(text=text)))  # it is no mark
        long = RerankSpec(query=QUERY, documents=["rain " * 500], truncate=True)
        assert 250 < (await client.ask(long)).n_prompt <= 256
    finally:
        await client.close()
