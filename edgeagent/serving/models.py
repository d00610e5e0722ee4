"""The installed models for clients that list, show, load and unload them; and whether the daemon is ready."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from edgeagent.catalog.aliases import is_pattern
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.installed import InstalledModels
from edgeagent.catalog.model_ids import is_id
from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, ModelNotFound
from edgeagent.pool import Pool
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.types.engine_config import Task
from edgeagent.types.template import TemplateFacts
from edgeagent.types.throttle import Reason


@dataclass(frozen=True)
class ModelStatus:
    """One installed model and whether it is loaded. `created` in Unix seconds; `template` tells what its
    chat template can show, None until that is known. A LoRA adapter names its model in `base`."""

    id: str
    created: int
    owner: str
    size_bytes: int
    state: Literal["loaded", "loading", "unloaded"]
    is_default: bool
    n_ctx: int | None
    task: Task
    aliases: tuple[str, ...] = ()
    template: TemplateFacts | None = None
    is_assistant: bool = False
    base: str | None = None

    @property
    def plain_aliases(self) -> list[str]:
        """The aliases that are names, not patterns."""
        return [alias for alias in self.aliases if not is_pattern(alias)]


@dataclass(frozen=True)
class Readiness:
    """Whether a request to the default model would be answered now, and if not, why."""

    status: Literal["ready", "loading", "unavailable"]
    model_id: str | None
    reason: str | None = None


class ModelAdmin:
    """Lists, loads and unloads models. Event loop's thread only."""

    def __init__(self, pool: Pool, models: InstalledModels, chooser: ModelChooser) -> None:
        self._pool = pool
        self._models = models
        self._chooser = chooser

    async def listing(self) -> list[ModelStatus]:
        """The installed models, after the tasks of unknown ones have been read from their files."""
        await self._models.examine()
        return self.models()

    def routes(self, origin: RequestOrigin) -> list[str]:
        """The names that stand for a choice among models, as far as the caller may use them."""
        return self._chooser.routes.listing(origin)

    def upstream_models(self, origin: RequestOrigin) -> list[str]:
        """The models that answer elsewhere, as far as requests of the caller may be sent there."""
        return self._chooser.elsewhere(origin)

    def models(self) -> list[ModelStatus]:
        """The installed models. A file that has been removed since the last listing is left out."""
        default = self._models.default_id()
        found = {
            model.id: self._status(model, default, created)
            for model in self._models.installed()
            if (created := _modified_s(model)) is not None
        }
        adapters = [
            replace(
                found[adapter.base], id=adapter.id, created=created, size_bytes=adapter.size_bytes,
                is_default=False, aliases=(), base=adapter.base,
            )
            for adapter in self._models.adapters()
            if adapter.base in found and (created := _modified_s(adapter)) is not None
        ]  # fmt: skip
        return [*found.values(), *adapters]

    def model(self, name: str) -> ModelStatus:
        """One installed model, by id, alias or `default`. Raises: ModelNotFound."""
        adapter = self._models.adapter(name) if is_id(name) else None
        model_id = adapter.id if adapter is not None else self._chooser.model_id(name)
        for model in self.models():
            if model.id == model_id:
                return model
        self._models.find(model_id)  # suggests the nearest name
        raise ModelNotFound(
            f"Model {model_id!r} cannot be read now: check its file, or GET /v1/models.",
            param="model",
        )

    async def load(self, name: str) -> ModelStatus:
        """Load a model before its first request. Raises what `Pool.lease` raises."""
        found = self.model(name)
        await self._pool.load(found.base or found.id)
        return self.model(name)

    async def unload(self, name: str) -> ModelStatus:
        """End a model's worker. Raises: ModelNotFound."""
        found = self.model(name)
        await self._pool.unload(found.base or found.id, "request")
        return self.model(name)

    def is_assistant(self, model_id: str) -> bool:
        """Whether the model is an assistant model, with tools of its own. Raises: SettingsError."""
        return self._models.assistant(model_id) is not None

    def _status(self, model: InstalledModel, default: str | None, created: int) -> ModelStatus:
        resident = self._pool.resident(model.id)
        is_loaded = resident is not None and resident.state == "loaded"
        client = resident.client if is_loaded and resident is not None else None
        facts = client.facts if isinstance(client, EngineClient) else None
        is_assistant = False
        with suppress(EdgeAgentError):  # raised again for a request to the model
            is_assistant = self.is_assistant(model.id)
        return ModelStatus(
            id=model.id,
            created=created,
            owner="local" if model.unmanaged else "edgeagent",
            size_bytes=model.size_bytes,
            state=resident.state if resident is not None else "unloaded",
            is_default=model.id == default,
            n_ctx=facts.n_ctx_slot if facts is not None else None,
            task=self._models.task(model),
            aliases=self._models.aliases(model.id),
            template=self._models.template(model),
            is_assistant=is_assistant,
        )

    @property
    def degraded(self) -> tuple[Reason, ...]:
        """Why answers are slower than usual now."""
        return self._pool.cores.throttle.reasons

    def readiness(self) -> Readiness:
        """Whether the default model could answer now."""
        try:
            model_id = self._chooser.for_text(None).model_id
        except EdgeAgentError as exc:
            return Readiness("unavailable", None, exc.message)
        resident = self._pool.resident(model_id)
        if resident is None:
            return Readiness("loading", model_id, "the model is loaded at the first request")
        if resident.state == "loaded":
            return Readiness("ready", model_id)
        if resident.state == "loading":
            share = self._models.hashed_share(model_id)
            doing = "being loaded" if share is None else f"being verified ({100 * share:.0f}%)"
            return Readiness("loading", model_id, f"the model is {doing}")
        if broken := self._pool.broken(resident):
            return Readiness("unavailable", model_id, broken.message)
        if resident.failure is not None:
            return Readiness("unavailable", model_id, resident.failure)
        return Readiness("loading", model_id, "the model is loaded at the first request")


def _modified_s(model: InstalledModel) -> int | None:
    try:
        return int(model.path.stat().st_mtime)
    except OSError:
        return None
