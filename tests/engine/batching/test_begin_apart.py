"""The contexts for prompts and answers are made once more than one sequence runs, and take no memory then."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgeagent.engine.batching.step_runner import LlamaRunner
from edgeagent.engine.client import EngineClient
from edgeagent.engine.llama import zero_pages
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import ModelUnusable
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.worker import confinement
from tests.engine.llama.rows import CLOSE, MANY, logits, row


def config(path: Path, **options: object) -> EngineConfig:
    own = {"model_id": "s", "path": str(path), "n_ctx": 2048, "n_seq": 4, "n_threads": 2}
    cells = {"prompt_cells": 512, "answer_cells": 256, "cells_on_demand": True}
    return EngineConfig(**(own | cells | options))


@pytest.fixture(scope="module")
def llama(stories: Path) -> Iterator[Llama]:
    llama = Llama(config(stories))
    yield llama
    llama.close()


def test_one_sequence_needs_no_further_contexts_and_two_get_them_once(llama: Llama, stories: Path):
    llama.clear()
    runner = LlamaRunner(llama, config(stories))
    assert runner.can_part and runner.is_beside
    assert runner.prompts is None and runner.streams is None and not runner.prompt_threads
    threads = runner.prompt_threads
    runner.run([row(0, 96, 0)])
    runner.begin_apart()
    made = runner.prompts, runner.streams
    assert all(made) and runner.prompt_threads is threads and len(threads) == 2
    runner.begin_apart()
    assert (runner.prompts, runner.streams) == made and len(threads) == 2
    # What the sequence had before is where it was, and a prompt beside it is computed apart.
    beside = logits(runner, [row(1, 100, 0)], MANY)
    assert runner.n_walking == 0
    own = logits(runner, [row(0, 1, 96)], 0)
    llama.clear()
    alone = LlamaRunner(llama, config(stories, prompt_cells=0, answer_cells=0))
    np.testing.assert_allclose(beside, logits(alone, [row(1, 100, 0)], 0), atol=CLOSE)
    alone.run([row(0, 96, 0)])
    np.testing.assert_allclose(own, logits(alone, [row(0, 1, 96)], 0), atol=CLOSE)


def test_memory_for_all_cells_is_taken_at_once_where_it_is_to_be(llama: Llama, stories: Path):
    runner = LlamaRunner(llama, config(stories, cells_on_demand=False))
    assert runner.prompts is not None and runner.streams is not None


def test_without_them_prompts_go_on_in_the_cache_of_all(
    llama: Llama, stories: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object, **__: object) -> None:
        raise ModelUnusable("No further context of 512 tokens could be made.")

    llama.clear()
    runner = LlamaRunner(llama, config(stories))
    monkeypatch.setattr(llama, "new_context", refuse)
    runner.run([row(0, 96, 0)])
    with caplog.at_level(logging.WARNING):
        runner.begin_apart()
        runner.begin_apart()
    assert caplog.text.count("contexts_missing") == 1
    found = runner.run([row(1, 40, 0), row(0, 1, 96)], MANY)
    assert found.shape == (2, llama.n_vocab) and runner.n_walking == 41


@pytest.mark.process
async def test_a_worker_takes_no_memory_for_cells_of_contexts_that_are_not_used(stories: Path):
    """Streams of answers have cells of 84 MB, of which two short ones use few."""
    one = config(stories, n_ctx=1 << 17, prompt_cells=0, answer_cells=1 << 15, n_threads=1)
    client = await EngineClient.start(one, timeout_s=60)
    try:
        assert client.pid is not None
        worker = psutil.Process(client.pid)
        prompt = Prompt(text="Once upon a time")
        for n in (1, 2):
            spec = GenerateSpec(prompts=[prompt] * n, max_tokens=8)
            generation = client.generate(spec)
            while await generation.take():
                pass
            if n == 1:
                alone = worker.memory_info().rss
        n_bytes = one.n_seq * one.n_answer_cells * client.facts.kv_bytes / one.n_ctx
        assert n_bytes > 2 * zero_pages.LEAST_BYTES
        assert worker.memory_info().rss - alone < n_bytes / 4
    finally:
        await client.close()


def test_a_runner_that_rests_gives_back_what_cells_took_and_computes_the_same_again(
    stories: Path, monkeypatch: pytest.MonkeyPatch
):
    wide = config(stories, n_ctx=1 << 17, n_seq=2, prompt_cells=1 << 15, answer_cells=1 << 15)
    prompt, beside = [row(0, 500, 0)], [row(1, 100, 0)]
    monkeypatch.setattr(confinement, "_own_maps", os.open("/proc/self/maps", os.O_RDONLY))
    llama = Llama(wide)
    try:
        runner = LlamaRunner(llama, wide)
        unused = runner.reserved_bytes
        n_cells = 2 * wide.n_prompt_cells + 2 * wide.n_answer_cells
        assert unused == n_cells * llama.kv_bytes() // llama.n_ctx
        runner.begin_apart()
        reserved = runner.reserved_bytes
        assert 0.7 * unused < reserved <= unused
        before = [logits(runner, rows, MANY).copy() for rows in (prompt, beside)]
        assert runner.n_walking == 0
        used = runner.reserved_bytes
        assert used < reserved
        for seq_id in (0, 1):
            runner.trim(seq_id, 0)
        runner.rest()
        assert runner.reserved_bytes == reserved
        after = [logits(runner, rows, MANY) for rows in (prompt, beside)]
        np.testing.assert_array_equal(before[0], after[0])
        np.testing.assert_array_equal(before[1], after[1])
    finally:
        llama.close()


def test_cells_that_a_sequence_uses_are_not_given_back(
    stories: Path, monkeypatch: pytest.MonkeyPatch
):
    wide = config(stories, n_ctx=1 << 17, n_seq=2, prompt_cells=0, answer_cells=1 << 15)
    monkeypatch.setattr(confinement, "_own_maps", os.open("/proc/self/maps", os.O_RDONLY))
    llama = Llama(wide)
    try:
        runner = LlamaRunner(llama, wide)
        runner.run([row(0, 500, 0)], 500)
        runner.run([row(1, 40, 0)], 540)
        runner.begin_apart()
        assert runner.streams is not None
        runner.run([row(0, 1, 500), row(1, 1, 40)], 542)
        assert not runner.streams.is_empty
        used = runner.reserved_bytes
        runner.rest()
        assert runner.reserved_bytes == used
    finally:
        llama.close()
