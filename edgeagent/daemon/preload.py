"""The default model's worker, begun while the daemon still loads its own modules.

To import the API takes a daemon about as long as it takes a worker to load a small model, and neither
waits for the other: on two cores a start is shorter by the lesser of the two.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from edgeagent.device.configuration import Configuration
from edgeagent.errors import EdgeAgentError
from edgeagent.pool import Placement
from edgeagent.pool.placement import InstalledModels
from edgeagent.types.worker import WorkerConfig
from edgeagent.worker.process import WorkerProcess

logger = logging.getLogger(__name__)


class Headstart:
    """Begins at once, on a thread of its own. `take` from any thread, once; `close` may be called twice."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._process: WorkerProcess | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._begin, name="headstart", daemon=True)
        self._thread.start()

    def take(self, config: WorkerConfig) -> WorkerProcess | None:
        """The worker that loads just this. Blocks while headers of models are being read.

        None, and no worker is left, where another one was begun or none at all.
        """
        self._thread.join()
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.config != config:
            process.close()
            return None
        return process

    def close(self) -> None:
        """End the worker if nobody has taken it."""
        with self._lock:
            self._is_closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _begin(self) -> None:
        try:
            placement = asyncio.run(self._default())
            with self._lock:
                if placement is not None and not self._is_closed:
                    self._process = placement.kind.launch(
                        placement.config, self._configuration.settings.log_level
                    )
        except (EdgeAgentError, OSError) as exc:  # the daemon meets it again, and tells everyone
            logger.debug("no_headstart %s", exc)

    async def _default(self) -> Placement | None:
        """How the default model is to be loaded; None without one, or where it needs more than the budget."""
        models = InstalledModels.of(self._configuration)
        await models.examine()
        model_id = models.default_id()
        if model_id is None:
            return None
        placement = await models.place(model_id)
        budget = self._configuration.settings.pool.ram_budget_bytes
        return placement if budget is None or placement.need_bytes <= budget else None
