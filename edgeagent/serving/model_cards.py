"""What there is to say of each model without asking it anything: for those who list and show them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.model_card import Card
from edgeagent.catalog.record import InstalledModel
from edgeagent.engine.client import EngineClient
from edgeagent.errors import ModelNotFound
from edgeagent.pool import Pool
from edgeagent.serving.answer import DEFAULT_ALIASES
from edgeagent.types.sampling import Sampling


@dataclass(frozen=True)
class LoadedCard:
    """A model in memory: its size there, its context, and when it goes if nobody asks it anything
    (Unix seconds; None: it stays)."""

    card: Card
    n_bytes: int
    n_ctx: int
    goes_s: float | None


class CardSource(Protocol):
    """What this asks of the installed models."""

    def default_id(self) -> str | None: ...

    def named(self, name: str) -> str: ...

    def installed(self) -> list[InstalledModel]: ...

    def find(self, model_id: str) -> InstalledModel:
        """Raises: ModelNotFound."""
        ...

    def sampling(self, model_id: str) -> Sampling: ...

    async def examine(self) -> None: ...

    async def card(self, model: InstalledModel) -> Card: ...

    async def facts(self, model: InstalledModel) -> ModelFacts:
        """Raises: GGUFRefused."""
        ...


class ModelCards:
    """Event loop's thread only. `idle_unload_s` None: nothing is unloaded for being idle."""

    def __init__(self, pool: Pool, models: CardSource, idle_unload_s: float | None) -> None:
        self._pool = pool
        self._models = models
        self._idle_unload_s = idle_unload_s

    async def all(self) -> list[Card]:
        """A card for each installed model."""
        await self._models.examine()
        return [await self._models.card(model) for model in self._models.installed()]

    async def loaded(self) -> list[LoadedCard]:
        """Those in memory now."""
        return [found for card in await self.all() if (found := self._loaded(card)) is not None]

    def _loaded(self, card: Card) -> LoadedCard | None:
        resident = self._pool.resident(card.id)
        if resident is None or resident.state != "loaded":
            return None
        if not isinstance(client := resident.client, EngineClient):
            return None
        goes_s = None
        if self._idle_unload_s is not None:
            idle_s = 0.0 if resident.n_leases else time.monotonic() - resident.last_used_s
            goes_s = time.time() + max(0.0, self._idle_unload_s - idle_s)
        return LoadedCard(card, resident.n_bytes, client.facts.n_ctx_slot, goes_s)

    async def shown(self, name: str) -> tuple[Card, ModelFacts, Sampling]:
        """One model's card, what its file says of it, and how it likes to be sampled.

        Raises: ModelNotFound; GGUFRefused for a file that is none.
        """
        model = self._models.find(self._id(name))
        await self._models.examine()
        card = await self._models.card(model)
        return card, await self._models.facts(model), self._models.sampling(model.id)

    def _id(self, name: str) -> str:
        if name not in DEFAULT_ALIASES:
            name = self._models.named(name)
        if name not in DEFAULT_ALIASES:
            return name
        default = self._models.default_id()
        if default is None:
            raise ModelNotFound(
                "No model is installed: `edgeagent models install smollm2-135m-instruct` gets a small "
                "one.",
                param="model",
            )
        return default
