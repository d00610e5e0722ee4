"""Load a model once, in its own worker, before it is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.engine.client import EngineClient
from edgeagent.errors import ModelUnusable, by_code
from edgeagent.types.engine_config import AdapterFile, EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.template import TemplateFacts
from edgeagent.types.unary_requests import TemplateSpec

TRIAL_TIMEOUT_S = 180.0


def trial_load(path: Path, template: str | None = None) -> TemplateFacts | None:
    """Load a model once and return what its chat template supports; `template` replaces that of the model.

    None for a model that does not generate text. Raises: ModelUnusable, EngineDied.
    """
    task = inspect_apart(path).task
    if task != "generate" and template is not None:
        raise ModelUnusable("it does not generate text and needs no chat template: leave it out")
    config = EngineConfig(
        model_id=path.name,
        path=str(path),
        task=task,
        n_ctx=256,
        n_seq=1,
        n_prefixes=0,
        n_batch=32,
        n_threads=1,
        chat_template=template,
    )
    facts = asyncio.run(_loaded(config))
    if template is not None and facts is not None and facts.problem is not None:
        raise ModelUnusable(f"the chat template is refused: {facts.problem}")
    return facts


def trial_adapter(base: Path, adapter: Path) -> None:
    """Load a model with an adapter, and compute a token with it. Raises: ModelUnusable, EngineDied."""
    config = EngineConfig(
        model_id=base.name, path=str(base), adapters=(AdapterFile("adapter", str(adapter)),), n_ctx=256,
        n_seq=1, n_prefixes=0, n_batch=32, n_threads=1,
    )  # fmt: skip
    asyncio.run(_computed(config))


async def _computed(config: EngineConfig) -> None:
    process = EngineClient.launch(config, "error", is_silent=True)
    client = await EngineClient.start(config, timeout_s=TRIAL_TIMEOUT_S, process=process)
    try:
        prompt = Prompt(text="a")
        spec = GenerateSpec(prompts=[prompt], max_tokens=1, adapter=config.adapters[0].id)
        generation = client.generate(spec)
        while chunks := await generation.take():
            for chunk in chunks:
                if chunk.error is not None:
                    raise by_code(*chunk.error)
    finally:
        await client.close()


async def _loaded(config: EngineConfig) -> TemplateFacts | None:
    # The error has llama.cpp's reason; the rest of its log and of the worker's would disturb the output.
    process = EngineClient.launch(config, "error", is_silent=True)
    client = await EngineClient.start(config, timeout_s=TRIAL_TIMEOUT_S, process=process)
    try:
        return await client.ask(TemplateSpec()) if config.task == "generate" else None
    finally:
        await client.close()
