"""The memory of a real worker that has done what workers do."""

from __future__ import annotations

from pathlib import Path

import psutil

from edgeagent.engine.client import EngineClient
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.unary_requests import EmbedSpec


async def measured_rss(path: Path, **options: object) -> tuple[int, int]:
    """RSS in bytes of (worker, its template process) after a prompt of more than a step and a batch
    of all its sequences."""
    # One thread: two that share cores with another program wait for each other at every barrier.
    own = {"model_id": path.stem, "path": str(path), "n_threads": 1}
    config = EngineConfig(**(own | options))
    client = await EngineClient.start(config, timeout_s=120)
    try:
        if config.task == "embed":
            return await _embedded(client), 0
        n_long = min(config.n_batch + 40, client.facts.n_ctx_slot - 24)
        await _run(client, [list(range(8, 108)) * (n_long // 100 + 1)], n_long, 4)
        n_short = min(48, config.n_ctx // config.n_seq - 24)
        prompts = [[10 + i] * 50 for i in range(config.n_seq)]
        await _run(client, prompts, n_short, 12)
        await _template(client)
        assert client.pid is not None
        worker = psutil.Process(client.pid)
        children = worker.children()
        return worker.memory_info().rss, sum(child.memory_info().rss for child in children)
    finally:
        await client.close()


async def _embedded(client: EngineClient) -> int:
    """RSS after texts of the greatest length and steps full of short ones."""
    longest = [[t % client.facts.n_vocab for t in range(8, 8 + client.facts.n_ctx_slot)]]
    await client.ask(EmbedSpec(inputs=longest))
    await client.ask(EmbedSpec(inputs=[[t % 100 for t in range(12)] for _ in range(60)]))
    assert client.pid is not None
    return int(psutil.Process(client.pid).memory_info().rss)


async def _run(client: EngineClient, prompts: list[list[int]], n_prompt: int, n: int) -> None:
    sampling = Sampling(temperature=0.7, seed=1)
    spec = [Prompt(tokens=[t % client.facts.n_vocab for t in p[:n_prompt]]) for p in prompts]
    generation = client.generate(
        GenerateSpec(prompts=spec, max_tokens=n, sampling=sampling, ignore_eos=True)
    )
    while await generation.take():
        pass


async def _template(client: EngineClient) -> None:
    if client.facts.has_chat_template:
        message = [{"role": "user", "content": "Hello"}]
        generation = client.generate(GenerateSpec(prompts=[Prompt(messages=message)], max_tokens=2))
        while await generation.take():
            pass
