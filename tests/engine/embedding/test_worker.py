"""A real worker on a real embedding model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.engine.client import EngineClient
from edgeagent.errors import (
    ContextLengthExceeded,
    EngineDied,
    InvalidParameter,
    ModelUnusable,
)
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.unary_requests import DetokenizeSpec, EmbedSpec, TokenizeSpec, Vectors
from tests.catalog.bert import embed, word_pieces
from tests.catalog.synthetic import Design, write_model
from tests.conftest import N_THREADS

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "trains", "ran"]
TEXTS = [" ".join(WORDS[i % 5 : i % 5 + 1 + i % 7]) + f" {i}" for i in range(64)]


def config(path: Path, **options: object) -> EngineConfig:
    own: dict[str, Any] = {
        "model_id": "minilm", "path": str(path), "task": "embed", "n_ctx": 512, "n_seq": 64,
        "n_prefixes": 0, "n_threads": N_THREADS,
    }  # fmt: skip
    return EngineConfig(**(own | options))


def rows(vectors: Vectors) -> np.ndarray[Any, Any]:
    return np.frombuffer(vectors.data, "<f4").reshape(-1, vectors.n_dimensions)


@pytest.fixture(scope="module")
async def worker(minilm: Path) -> AsyncIterator[EngineClient]:
    client = await EngineClient.start(config(minilm), timeout_s=60)
    yield client
    await client.close()


async def test_vectors_are_those_that_the_paper_and_the_published_weights_give(
    worker: EngineClient, minilm_published: Path
):
    texts = ["the cat sat on the mat", "where is my parcel", "unbelievable transcription", "rain"]
    vocabulary = (minilm_published / "vocab.txt").read_text().splitlines()
    tensors = read_tensors(minilm_published / "model.safetensors")
    found = await worker.ask(EmbedSpec(inputs=texts))
    tokens = [word_pieces(text, vocabulary) for text in texts]
    assert found.n_prompt == sum(map(len, tokens))
    for row, ids in zip(rows(found), tokens, strict=True):
        assert row @ embed(tensors, 12, 1e-12, ids) > 1 - 1e-4
    again = await worker.ask(EmbedSpec(inputs=list(tokens)))
    np.testing.assert_allclose(rows(again), rows(found), atol=1e-5)


async def test_a_batch_is_what_its_texts_are_one_by_one(worker: EngineClient):
    together = rows(await worker.ask(EmbedSpec(inputs=list(TEXTS))))
    assert together.shape == (64, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, row in zip(TEXTS, together, strict=True):
        alone = rows(await worker.ask(EmbedSpec(inputs=[text])))[0]
        np.testing.assert_allclose(row, alone, atol=1e-3)


async def test_many_at_once_each_get_their_own(worker: EngineClient):
    asked = [EmbedSpec(inputs=TEXTS[i : i + 1 + i % 5]) for i in range(24)]
    found = await asyncio.gather(*map(worker.ask, asked))
    expected = rows(await worker.ask(EmbedSpec(inputs=list(TEXTS))))
    for i, vectors in enumerate(found):
        np.testing.assert_allclose(rows(vectors), expected[i : i + len(rows(vectors))], atol=1e-3)
    assert worker.n_open == 0


async def test_what_names_a_special_token_in_a_text_is_text(worker: EngineClient):
    plain = await worker.ask(EmbedSpec(inputs=["a [SEP] b"]))
    assert plain.n_prompt > 5


async def test_a_text_too_long_is_refused_with_the_numbers_or_cut_where_asked(
    worker: EngineClient,
):
    long = "rain " * 600
    with pytest.raises(
        ContextLengthExceeded, match=r"Input 1 has at least 602 tokens.* 512.*truncate"
    ):
        await worker.ask(EmbedSpec(inputs=["short", long]))
    cut = await worker.ask(EmbedSpec(inputs=[long], truncate=True))
    assert cut.n_prompt == 512
    endless = await worker.ask(EmbedSpec(inputs=["rain " * 200_000], truncate=True))
    np.testing.assert_allclose(rows(endless), rows(cut), atol=1e-5)
    # The closing mark stays: the same as the text that has just that many words.
    fits = await worker.ask(EmbedSpec(inputs=["rain " * 510]))
    np.testing.assert_allclose(rows(cut), rows(fits), atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EmbedSpec(inputs=[[5, 30522]]), "30522.* 0 to 30521"),
        (EmbedSpec(inputs=[[-1]]), "token -1"),
        (EmbedSpec(inputs=[[]]), "no tokens"),
        (EmbedSpec(inputs=["a"], dimensions=385), "385.* 384"),
        (DetokenizeSpec(tokens=[1 << 30]), "vocabulary"),
    ],
)
async def test_what_cannot_be_is_refused(worker: EngineClient, spec, message):
    with pytest.raises(InvalidParameter, match=message):
        await worker.ask(spec)
    assert worker.n_open == 0


async def test_dimensions_are_the_first_numbers_at_length_one(worker: EngineClient):
    whole = rows(await worker.ask(EmbedSpec(inputs=["rain"])))[0]
    cut = rows(await worker.ask(EmbedSpec(inputs=["rain"], dimensions=64)))[0]
    np.testing.assert_allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


async def test_text_becomes_tokens_and_tokens_text(worker: EngineClient):
    tokens = await worker.ask(TokenizeSpec(text="hello worldliness", add_special=True))
    assert (tokens[0], tokens[-1]) == (101, 102)
    bare = await worker.ask(TokenizeSpec(text="hello worldliness"))
    assert bare == tokens[1:-1]
    assert (await worker.ask(DetokenizeSpec(tokens=bare))).strip() == "hello worldliness"
    assert await worker.ask(TokenizeSpec(text="")) == []
    assert await worker.ask(DetokenizeSpec(tokens=[])) == ""
    assert 102 in await worker.ask(TokenizeSpec(text="a [SEP] b"))
    assert 102 not in await worker.ask(TokenizeSpec(text="a [SEP] b", parse_special=False))


async def test_who_gives_up_costs_nobody_anything(worker: EngineClient):
    endless = asyncio.create_task(worker.ask(EmbedSpec(inputs=[[1000] * 500] * 2000)))
    first = await worker.ask(EmbedSpec(inputs=["rain"]))  # answered beside it
    assert not endless.done()
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    assert worker.n_open == 0
    again = await worker.ask(EmbedSpec(inputs=["rain"]))
    np.testing.assert_allclose(rows(again), rows(first), atol=1e-5)
    while worker.health.n_running + worker.health.n_waiting:  # the next heartbeat says so
        await asyncio.sleep(0.05)


async def test_a_killed_worker_ends_what_waits_for_it(minilm: Path):
    died = asyncio.Event()
    client = await EngineClient.start(config(minilm), timeout_s=60, on_death=lambda *_: died.set())
    asked = asyncio.create_task(client.ask(EmbedSpec(inputs=[[1000] * 500] * 500)))
    await client.ask(EmbedSpec(inputs=["rain"]))
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="SIGKILL"):
        await asked
    await died.wait()
    with pytest.raises(EngineDied):
        await client.ask(EmbedSpec(inputs=["rain"]))
    await client.close()


async def test_each_worker_refuses_what_only_the_other_can(worker: EngineClient, stories: Path):
    with pytest.raises(InvalidParameter, match="generates no text"):
        async for _ in worker.generate(GenerateSpec(prompts=[Prompt(text="Once")])):
            pass
    teller = await EngineClient.start(
        EngineConfig(model_id="stories", path=str(stories), n_ctx=256, n_threads=N_THREADS),
        timeout_s=60,
    )
    try:
        with pytest.raises(InvalidParameter, match="makes no embeddings"):
            await teller.ask(EmbedSpec(inputs=["rain"]))
        tokens = await teller.ask(TokenizeSpec(text="Once upon a time"))
        assert await teller.ask(DetokenizeSpec(tokens=tokens)) == "Once upon a time"
    finally:
        await teller.close()


async def test_a_model_without_pooling_is_not_loaded(stories: Path):
    with pytest.raises(ModelUnusable, match="mean, cls and last"):
        await EngineClient.start(config(stories, model_id="stories"), timeout_s=60)


@pytest.fixture(scope="session")
def causal(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Qwen3-Embedding is one: attention looks back only, the last token's vector counts."""
    design = Design("qwen2", 2, 64, 4, 2, 16, 128, "F16", embedding="F16", pooling=3)
    return write_model(tmp_path_factory.mktemp("causal") / "causal.gguf", design, smollm)


async def test_a_model_that_looks_back_only_keeps_nothing_between_texts(causal: Path):
    client = await EngineClient.start(config(causal, n_ctx=128, n_batch=128), timeout_s=60)
    try:
        together = rows(await client.ask(EmbedSpec(inputs=list(TEXTS[:20]))))
        assert together.shape == (20, 64)
        for text, row in zip(TEXTS[:20], together, strict=True):
            alone = rows(await client.ask(EmbedSpec(inputs=[text])))[0]
            np.testing.assert_allclose(row, alone, atol=2e-3)
        assert psutil.pid_exists(client.facts.pid) and client.facts.kv_bytes > 0
    finally:
        await client.close()
