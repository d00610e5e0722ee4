"""The installed models as the pool and the agent want them: which there are, and how to load each.

Event loop's thread only. The directories are listed at most every two seconds, and at once for a name
that is not known; headers are read by a process of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from edgeagent.catalog.facts import ModelFacts
from edgeagent.catalog.inspection import inspect_apart
from edgeagent.catalog.library import Library
from edgeagent.catalog.manifest import Catalog
from edgeagent.catalog.record import InstalledModel
from edgeagent.device.measure import Measurement
from edgeagent.errors import EdgeAgentError, ModelNotFound
from edgeagent.pool import Placement
from edgeagent.settings import Settings
from edgeagent.types import EngineConfig, Sampling

logger = logging.getLogger(__name__)

LISTING_AGE_S = 2.0
GENERATING_TASKS = ("chat", "assistant")
BITS_PER_VALUE = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


class InstalledModels:
    """`n_threads` is what one engine may use; `measured` gives what is known of this device's speed."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        catalog: Catalog,
        *,
        n_threads: int,
        measured: Callable[[], Measurement | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._library = library
        self._catalog = catalog
        self._n_threads = n_threads
        self._measured = measured
        self._listing: dict[str, InstalledModel] = {}
        self._listed_s = float("-inf")

    def installed(self) -> list[InstalledModel]:
        """Every model that generates text, by id. A directory that cannot be read has none."""
        now = time.monotonic()
        if now - self._listed_s > LISTING_AGE_S:
            self._listed_s = now
            try:
                found = self._library.installed()
            except EdgeAgentError as exc:
                logger.error("models_dir_unreadable %s", exc.message)
                found = []
            self._listing = {model.id: model for model in found if self._generates(model)}
        return list(self._listing.values())

    def _generates(self, model: InstalledModel) -> bool:
        return (
            model.id not in self._catalog or self._catalog.entry(model.id).task in GENERATING_TASKS
        )

    def default_id(self) -> str | None:
        """The default model, or the first there is; None when none is installed."""
        ids = [model.id for model in self.installed()]
        if self._settings.default_model in ids:
            return self._settings.default_model
        return ids[0] if ids else None

    def sampling(self, model_id: str) -> Sampling:
        """The catalog's sampling defaults for the model over our own."""
        if model_id not in self._catalog:
            return Sampling()
        defaults = self._catalog.entry(model_id).sampling
        known = {name: getattr(defaults, name) for name in defaults.__struct_fields__}
        return Sampling(**{name: value for name, value in known.items() if value is not None})

    def find(self, model_id: str) -> InstalledModel:
        """Raises: ModelNotFound, with the nearest name or the command that installs it."""
        self.installed()
        if model_id not in self._listing:
            self._listed_s = float("-inf")
            self.installed()
        if model_id in self._listing:
            return self._listing[model_id]
        self._library.resolve(model_id)  # says what is near, or that it is not installed
        raise ModelNotFound(
            f"Model {model_id!r} does not generate text: GET /v1/models lists those that do.",
            param="model",
        )

    async def place(self, model_id: str) -> Placement:
        """How to load a model, and what that needs. Raises: ModelNotFound, GGUFRefused."""
        model = self.find(model_id)
        facts = await asyncio.to_thread(inspect_apart, model.path)
        config = self._config(model, facts)
        return Placement(config, *estimate(facts, config))

    def _config(self, model: InstalledModel, facts: ModelFacts) -> EngineConfig:
        settings = self._settings
        return EngineConfig(
            model_id=model.id,
            path=str(model.path),
            # Cells beyond what all slots may use together are never touched.
            n_ctx=min(settings.n_ctx, max(256, facts.n_ctx_train * settings.n_seq)),
            n_seq=settings.n_seq,
            n_prefixes=settings.n_prefixes,
            n_batch=settings.n_batch,
            n_threads=self._n_threads,
            kv_type=settings.kv_type,
            flash_attention=settings.flash_attention,
            step_budget_ms=settings.step_budget_ms,
            queue_limit=settings.queue_limit,
            queue_timeout_s=settings.queue_timeout_s,
            default_max_tokens=settings.default_max_tokens,
            template_timeout_s=settings.template_timeout_s,
            prefill_tok_s=self._prefill_tok_s(facts),
        )

    def _prefill_tok_s(self, facts: ModelFacts) -> float | None:
        """The measured prefill rate, scaled by size to this model: the scheduler's first guess."""
        measured = self._measured()
        if measured is None or measured.model is None or not measured.model.prefill_tok_s:
            return None
        rate = max(measured.model.prefill_tok_s.values())
        return rate * measured.model.n_params / max(1, facts.n_params)


def estimate(facts: ModelFacts, config: EngineConfig) -> tuple[int, str]:
    """Bytes that a worker needs for the model, and the arithmetic in words."""
    head = facts.n_embd // max(facts.n_head)
    width = (facts.key_length or head) + (facts.value_length or head)
    kv = int(sum(facts.n_head_kv) * width * config.n_ctx * BITS_PER_VALUE[config.kv_type] / 8)
    compute = 4 * config.n_batch * (3 * facts.n_embd + 2 * max(facts.n_ff, default=0))
    fixed = 75_000_000
    total = facts.weights_bytes + kv + compute + fixed
    parts = {"weights": facts.weights_bytes, "KV": kv, "compute": compute, "process": fixed}
    return total, " + ".join(f"{name} {n / 1e6:,.0f}" for name, n in parts.items())
