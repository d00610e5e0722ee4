"""Facts about each installed model that need no worker, for clients that list and show models."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeagent.catalog.installed import InstalledModels
from edgeagent.engine.client import EngineClient
from edgeagent.pool import Pool
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.types.model_summary import ModelSummary
from edgeagent.types.sampling import Sampling


@dataclass(frozen=True)
class LoadedCard:
    """A loaded model: its size in memory, its context, and the time when it is unloaded unless it is used
    (Unix seconds; None: it stays)."""

    card: ModelSummary
    n_bytes: int
    n_ctx: int
    unload_s: float | None


@dataclass(frozen=True)
class ShownModel:
    """One model in detail. `header` has fields of its file's header, under the names that they have there."""

    card: ModelSummary
    header: dict[str, str | int | float | None]
    has_chat_template: bool
    sampling: Sampling


class ModelCards:
    """Event loop's thread only. `idle_unload_s` None: nothing is unloaded for being idle."""

    def __init__(
        self,
        pool: Pool,
        models: InstalledModels,
        chooser: ModelChooser,
        idle_unload_s: float | None,
    ) -> None:
        self._pool = pool
        self._models = models
        self._chooser = chooser
        self._idle_unload_s = idle_unload_s

    async def all(self) -> list[ModelSummary]:
        """A card for each installed model."""
        await self._models.examine()
        return [await self._models.card(model) for model in self._models.installed()]

    async def loaded(self) -> list[LoadedCard]:
        """The models that are loaded now."""
        return [found for card in await self.all() if (found := self._loaded(card)) is not None]

    def _loaded(self, card: ModelSummary) -> LoadedCard | None:
        resident = self._pool.resident(card.id)
        if resident is None or resident.state != "loaded":
            return None
        if not isinstance(client := resident.client, EngineClient):
            return None
        unload_s = None
        if self._idle_unload_s is not None:
            idle_s = 0.0 if resident.n_leases else time.monotonic() - resident.last_used_s
            unload_s = time.time() + max(0.0, self._idle_unload_s - idle_s)
        return LoadedCard(card, resident.n_bytes, client.facts.n_ctx_slot, unload_s)

    async def shown(self, name: str) -> ShownModel:
        """One model in detail. Raises: ModelNotFound; GGUFRefused for a file that is not GGUF."""
        model = self._models.find(self._chooser.for_any_task(name).model_id)
        await self._models.examine()
        card, facts = await self._models.card(model), await self._models.facts(model)
        sampling = self._models.sampling(model.id)
        return ShownModel(card, facts.header(), facts.has_chat_template, sampling)
