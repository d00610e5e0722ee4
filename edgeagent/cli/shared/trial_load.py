"""Load a model once, in its own worker, before it is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.engine.client import EngineClient
from edgeagent.errors import ModelUnusable
from edgeagent.types.engine_config import EngineConfig
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


async def _loaded(config: EngineConfig) -> TemplateFacts | None:
    # The error has llama.cpp's reason; the rest of its log and of the worker's would disturb the output.
    process = EngineClient.launch(config, "error", is_silent=True)
    client = await EngineClient.start(config, timeout_s=TRIAL_TIMEOUT_S, process=process)
    try:
        return await client.ask(TemplateSpec()) if config.task == "generate" else None
    finally:
        await client.close()
