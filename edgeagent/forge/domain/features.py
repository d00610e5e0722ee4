"""Features of texts by llama.cpp, in a worker: the last hidden state of a prompt, and sentence vectors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from edgeagent.engine.client import EngineClient
from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.unary_requests import EmbedSpec, TokenizeSpec, Vectors

LOAD_TIMEOUT_S = 120.0
# Tokens that a text may have; longer ones are cut at the end.
MAX_TOKENS = 250
_TEXTS = 64  # of one request
_OPEN = 8  # requests at a time

Tell = Callable[[int], None]


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


@asynccontextmanager
async def encoder(path: Path, n_threads: int | None = None) -> AsyncIterator[EngineClient]:
    """A worker that turns texts into vectors with the model at `path`. Raises: what `start` raises."""
    config = EngineConfig(
        model_id=path.stem, path=str(path), task="embed", n_ctx=256, n_seq=32, n_prefixes=0,
        n_batch=512, n_threads=n_threads or cores(), queue_limit=256, queue_timeout_s=600,
    )  # fmt: skip
    process = EngineClient.launch(config, "error", is_silent=True)
    client = await EngineClient.start(config, timeout_s=LOAD_TIMEOUT_S, process=process)
    try:
        yield client
    finally:
        await client.close()


async def tokenized(client: EngineClient, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of ordinary texts."""
    gate = asyncio.Semaphore(_TEXTS)

    async def one(text: str) -> list[int]:
        async with gate:
            ids: list[int] = await client.ask(TokenizeSpec(text=text, parse_special=False))
            return ids[:MAX_TOKENS]

    return await asyncio.gather(*map(one, texts))


async def vectors(
    client: EngineClient, inputs: Sequence[str] | Sequence[list[int]], tell: Tell = lambda n: None
) -> Floats:
    """Unit vectors of texts or of their tokens, float32 [n, n_dimensions]; `tell` gets how many more are
    computed."""
    gate = asyncio.Semaphore(_OPEN)

    async def some(start: int) -> Floats:
        async with gate:
            part = list(inputs[start : start + _TEXTS])
            made: Vectors = await client.ask(EmbedSpec(inputs=part, truncate=True))  # type: ignore[arg-type]
            tell(len(part))
            return np.frombuffer(made.data, "<f4").reshape(len(part), made.n_dimensions)

    found = await asyncio.gather(*(some(i) for i in range(0, len(inputs), _TEXTS)))
    if not found:
        raise ForgeFailed("There are no texts to compute features of: add examples.")
    return np.concatenate(found)


def hidden_states(unit: Floats, norm: Floats) -> Floats:
    """The hidden states behind the last layer norm, of their unit vectors: float32 [n, n_embd].

    Before the scale `norm` is applied, every state has the length sqrt(n_embd).
    """
    lengths = np.linalg.norm(unit / norm, axis=1, keepdims=True)
    return np.asarray(unit * (np.sqrt(len(norm)) / lengths), np.float32)


async def prompt_states(
    client: EngineClient, norm: Floats, texts: Sequence[str], tell: Tell = lambda n: None
) -> Floats:
    """The states at the end of the prompts of texts: `<|user|>` TEXT `<|assistant|>` (ids 0 and 1)."""
    ids = await tokenized(client, texts)
    return hidden_states(await vectors(client, [[0, *one, 1] for one in ids], tell), norm)
