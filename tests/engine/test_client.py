"""The daemon's side of an engine worker: which tokens wait, and when they no longer do."""

from __future__ import annotations

import msgspec
import pytest

from edgeagent.engine import protocol
from edgeagent.engine.client import EngineClient, Generation
from edgeagent.types.answer import TokenChunk
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.worker_config import ComputeLimits

CONFIG = EngineConfig(model_id="m", path="")


def burst(generation: Generation, texts: str, finish: str | None = None) -> protocol.Step:
    chunks = [(generation.request_id, TokenChunk(0, text)) for text in texts]
    if finish is not None:
        chunks.append((generation.request_id, TokenChunk(0, "", finish=finish)))  # type: ignore[arg-type]
    return protocol.Step(chunks)


def begun(
    config: EngineConfig = CONFIG, *, is_live: bool = True
) -> tuple[EngineClient, Generation]:
    client = EngineClient(config)
    generation = client.generate(GenerateSpec(prompts=[Prompt(tokens=[1])]))
    generation.is_live = is_live
    return client, generation


async def taken(generation: Generation) -> list[str]:
    return [chunk.text for chunk in await generation.take()]


async def test_the_first_token_of_a_burst_goes_on_and_the_end_brings_the_others():
    client, generation = begun()
    client._receive(burst(generation, "abcd"))
    assert await taken(generation) == ["a"]
    client._receive(burst(generation, "e", "length"))
    assert "".join(await taken(generation)) == "bcde"
    assert await generation.take() == []


@pytest.mark.parametrize("why", ["whole", "setting", "contention"])
async def test_nothing_waits_where_nobody_reads_it_as_it_comes_or_others_need_the_cores(why: str):
    config = msgspec.structs.replace(CONFIG, smooth_streams=why != "setting")
    client, generation = begun(config, is_live=why != "whole")
    if why == "contention":
        client.limits = ComputeLimits(n_threads=2, n_cores_taken=1)
    client._receive(burst(generation, "abcd"))
    assert await taken(generation) == ["abcd"]


async def test_what_waits_goes_on_as_soon_as_others_need_the_cores():
    client, generation = begun()
    client._receive(burst(generation, "abcd"))
    assert await taken(generation) == ["a"]
    client.set_limits(ComputeLimits(n_threads=2, n_cores_taken=1))
    assert await taken(generation) == ["bcd"]


async def test_requests_that_have_not_begun_change_nothing_of_the_pieces():
    client, generation = begun()
    for _ in range(200):
        client.generate(GenerateSpec(prompts=[Prompt(tokens=[1])]))
    client._receive(burst(generation, "abcd"))
    assert await taken(generation) == ["a"]


async def test_who_cancels_is_told_the_end_and_no_token_that_waited():
    client, generation = begun()
    client._receive(burst(generation, "abcd"))
    generation.cancel()
    client._receive(burst(generation, "", "cancelled"))
    chunks = await generation.take()
    assert ([chunk.text for chunk in chunks], chunks[-1].finish) == (["a", ""], "cancelled")
