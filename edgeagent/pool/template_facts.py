"""Learns what a model's chat template can show when the model is first loaded."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.installed import InstalledModels
from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError
from edgeagent.types.unary_requests import TemplateSpec
from edgeagent.worker.client import WorkerClient

logger = logging.getLogger(__name__)

TIMEOUT_S = 60.0


class TemplateLearner:
    """Asks workers about the templates of models that were installed without a trial load. Event loop's
    thread only."""

    def __init__(self, models: InstalledModels) -> None:
        self._models = models
        self._tasks: set[asyncio.Task[None]] = set()

    def learn(self, model_id: str, client: WorkerClient) -> None:
        """Ask the worker of a model that was just loaded, unless its template is known. Does not wait."""
        if not isinstance(client, EngineClient) or client.facts.task != "generate":
            return
        with suppress(EdgeAgentError):
            model = self._models.find(model_id)
            if self._models.template(model) is None:
                task = asyncio.create_task(self._ask(model, client), name="learn-template")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _ask(self, model: InstalledModel, client: EngineClient) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._models.keep_template(model, await client.ask(TemplateSpec()))
        except (EdgeAgentError, TimeoutError) as exc:  # the worker died or is busy: next time
            logger.debug("template_unknown model=%s reason=%s", model.id, type(exc).__name__)
