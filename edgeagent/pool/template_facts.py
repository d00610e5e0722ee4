"""What chat templates were found to show: at the install of their models, else when they are first loaded."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError
from edgeagent.types.questions import TemplateSpec
from edgeagent.types.template import TemplateFacts

logger = logging.getLogger(__name__)

TIMEOUT_S = 60.0
_Key = tuple[Path, int, str | None]


class LearntTemplates:
    """Kept in memory: a worker tells it again at the next load. Event loop's thread only."""

    def __init__(self) -> None:
        self._known: dict[_Key, TemplateFacts] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, model: InstalledModel) -> TemplateFacts | None:
        """What a model's template can show; None where nobody has loaded the model yet."""
        return model.template or self._known.get(_key(model))

    def learn(self, model: InstalledModel, client: EngineClient) -> None:
        """Ask the worker of a model that was just loaded, unless its template is known. Does not wait."""
        if client.facts.task != "generate" or self.of(model) is not None:
            return
        task = asyncio.create_task(self._learn(model, client), name="learn-template")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _learn(self, model: InstalledModel, client: EngineClient) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._known[_key(model)] = await client.ask(TemplateSpec())
        except (EdgeAgentError, TimeoutError) as exc:  # the worker died or is busy: next time
            logger.debug("template_unknown model=%s reason=%s", model.id, type(exc).__name__)


def _key(model: InstalledModel) -> _Key:
    return model.path, model.size_bytes, model.template_file_sha256
