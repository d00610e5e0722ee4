"""Runs the trial of a route's model: first tokens of its answer, and answers that are drawn beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from edgeagent.engine.client import EngineClient
from edgeagent.errors import by_code
from edgeagent.routing.cascade import DRAW_TEMPERATURE, N_ALTERNATIVES, Trial, trial_of
from edgeagent.serving.engines import Engines
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import TokenChunk, TokenLogprob
from edgeagent.types.generation import GenerateSpec


async def run_trial(
    engines: Engines, model_id: str, spec: GenerateSpec, settings: RoutingSettings
) -> Trial | None:
    """The trial of a request. Its prompt is computed once, and stays in the KV cache for the answer.

    Raises what `Pool.lease` and the worker raise.
    """
    n_tokens = min(settings.cascade_tokens, spec.max_tokens or settings.cascade_tokens)
    question = msgspec.structs.replace(
        spec, prompts=spec.prompts[:1], max_tokens=n_tokens, n=1, logprobs=N_ALTERNATIVES,
        tells_tokens=False, scores_prompt=False,
    )  # fmt: skip
    tokens: list[TokenLogprob] = []
    texts = [""] * settings.cascade_samples
    async with engines.lease(model_id) as client:
        async for chunk in _chunks(client, question):
            tokens += chunk.logprobs
        if len(texts) > 1:
            warm = max(DRAW_TEMPERATURE, spec.sampling.temperature)
            sampling = msgspec.structs.replace(spec.sampling, temperature=warm, seed=None)
            drawn = msgspec.structs.replace(
                question, n=len(texts), logprobs=None, sampling=sampling
            )
            async for chunk in _chunks(client, drawn):
                texts[chunk.index] += chunk.reasoning + chunk.text
    return trial_of(tokens, texts)


async def _chunks(client: EngineClient, spec: GenerateSpec) -> AsyncIterator[TokenChunk]:
    generation = client.generate(spec)
    try:
        async for chunk in generation:
            if chunk.error is not None:
                raise by_code(*chunk.error)
            yield chunk
    finally:
        generation.cancel()
