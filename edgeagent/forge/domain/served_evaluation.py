"""Evaluates a model file as the daemon serves it: in an engine worker, text by text, with slots."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.engine.client import EngineClient
from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.example import Example
from edgeagent.forge.domain.features import LOAD_TIMEOUT_S
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Candidate, IntentQuestion, Slot
from edgeagent.types.prompt import Prompt

_OPEN = 16


@dataclass(frozen=True)
class Choice:
    """The most probable intent of a text, its probability and its lead over the second, and the slots that
    were filled."""

    intent: str
    probability: float
    margin: float
    slots: Mapping[str, str]


@dataclass(frozen=True)
class ServedFigures:
    """Shares of texts: `accuracy` of the intent, `calls` with every slot right among those that have
    slots, `slot_f1` of exact values; None without slots. `texts_per_s` as served."""

    accuracy: float
    slot_f1: float | None
    calls: float | None
    texts_per_s: float


async def choices(
    path: Path,
    texts: Sequence[str],
    intents: Sequence[str],
    slot_names: Mapping[str, Sequence[str]],
    tell: Callable[[int], None] = lambda n: None,
) -> list[Choice]:
    """What the model chooses for each text, without a threshold. Raises: what a worker raises."""
    task = inspect(path).task
    config = EngineConfig(
        model_id=path.stem, path=str(path), task=task, n_ctx=_OPEN * 512 if task == "generate" else 512,
        n_seq=_OPEN, n_prefixes=0, n_threads=1, queue_limit=4 * _OPEN, queue_timeout_s=600,
    )  # fmt: skip
    candidates = [
        Candidate(name, name in slot_names, [Slot(slot) for slot in slot_names.get(name, ())])
        for name in intents
    ]
    process = EngineClient.launch(config, "error", is_silent=True)
    client = await EngineClient.start(config, timeout_s=LOAD_TIMEOUT_S, process=process)
    gate = asyncio.Semaphore(2 * _OPEN)

    async def one(text: str) -> Choice:
        question = IntentQuestion(
            text=text, candidates=candidates, out_of_scope=OUT_OF_SCOPE, threshold=0.0,
            may_abstain=False, otherwise="",
        )  # fmt: skip
        async with gate:
            found, arguments = "", ""
            probability = margin = 0.0
            async for chunk in client.generate(GenerateSpec(
                prompts=[Prompt(messages=[{"role": "user", "content": text}])], intent_question=question,
            )):  # fmt: skip
                if chunk.error is not None:
                    raise ForgeFailed(f"{path.name} cannot answer {text[:60]!r}: {chunk.error[1]}")
                for call in chunk.calls:
                    found, arguments = call.name or found, arguments + call.arguments
                if chunk.confidence is not None:
                    probability, margin = chunk.confidence.probability, chunk.confidence.margin
            tell(1)
            return Choice(found, probability, margin, json.loads(arguments or "{}"))

    try:
        return await asyncio.gather(*map(one, texts))
    finally:
        await client.close()


async def served_figures(
    path: Path,
    examples: Sequence[Example],
    intents: Sequence[str],
    slot_names: Mapping[str, Sequence[str]],
    tell: Callable[[int], None] = lambda n: None,
) -> tuple[ServedFigures, list[Choice]]:
    """Figures of a file on examples with an intent, and its choices."""
    started = time.monotonic()
    found = await choices(path, [e.text for e in examples], intents, slot_names, tell)
    took = time.monotonic() - started
    n_right = n_wanted = n_found = n_calls = n_whole = 0
    for example, choice in zip(examples, found, strict=True):
        if example.intent not in slot_names:
            continue
        wanted: dict[str, str] = {}
        for slot in example.slots:
            wanted.setdefault(slot.name, slot.value)
        n_right += sum(choice.slots.get(name) == value for name, value in wanted.items())
        n_wanted, n_found = n_wanted + len(wanted), n_found + len(choice.slots)
        n_calls += 1
        n_whole += choice.intent == example.intent and choice.slots == wanted
    n = max(1, len(examples))
    figures = ServedFigures(
        sum(c.intent == e.intent for e, c in zip(examples, found, strict=True)) / n,
        2 * n_right / (n_wanted + n_found) if n_wanted + n_found else None,
        n_whole / n_calls if n_calls else None,
        len(examples) / max(took, 1e-6),
    )
    return figures, found
